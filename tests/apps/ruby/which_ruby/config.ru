run ->(_env) { [200, { "content-type" => "text/plain" }, ["#{RUBY_ENGINE} #{RUBY_VERSION} #{Process.pid}"]] }
