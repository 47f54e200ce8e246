# frozen_string_literal: true

# As python/oob_work, by the event that Phusion Passenger has.

WORK = ENV.fetch("WORK")
HEADERS = { "/ask" => "x-passenger-request-oob-work", "/ask-as-passenger-5" => "!~request-oob-work" }.freeze

PhusionPassenger.on_event(:oob_work) do
  File.write(File.join(WORK, "begun-#{Process.pid}"), "")
  sleep 0.01 until File.exist?(File.join(WORK, "go"))
  File.write(File.join(WORK, "log"), "#{Process.pid}\n", mode: "a")
  raise "the work fails" if File.exist?(File.join(WORK, "fails"))
end

run(lambda do |env|
  headers = { "content-type" => "text/plain", "x-other" => "yes", "!~secret" => "yes" }
  name = HEADERS[env["PATH_INFO"]]
  headers[name] = "true" if name
  [200, headers, [Process.pid.to_s]]
end)
