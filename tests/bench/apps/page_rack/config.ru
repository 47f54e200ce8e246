# 2 KiB of HTML, and what a browser's request is usually answered with beside it.
ROW = "<tr><td>an article</td><td>2026-11-24</td></tr>\n"
PAGE = ("<!doctype html><title>Articles</title><table>\n" + (ROW * 40)).ljust(2048).freeze

run(lambda do |env|
  raise "the headers did not come" if env["HTTP_ACCEPT"] && !env["HTTP_COOKIE"].to_s.start_with?("session=")

  headers = {
    "Content-Type" => "text/html; charset=utf-8",
    "Content-Length" => "2048",
    "Cache-Control" => "private, max-age=0",
    "Vary" => "Cookie",
    "X-Frame-Options" => "SAMEORIGIN",
    "Set-Cookie" => "seen=1; Path=/; HttpOnly"
  }
  [200, headers, [PAGE]]
end)
