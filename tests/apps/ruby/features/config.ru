# What Rack offers to applications, each at a path, under Rack::Lint (but for the paths of RAW, where Lint stands in the way).

LOG = ENV["FEATURES_LOG"]

NOTE = ->(text) { File.open(LOG, "a") { |file| file.puts(text) } if LOG }

# A body of any kind, which notes that it was closed.
class Body
  def initialize(parts, path: nil)
    @parts = parts
    define_singleton_method(:to_path) { path } if path
  end

  def each(&block)
    @parts.each(&block)
  end

  def close
    NOTE.call("closed")
  end
end

TEXT = { "content-type" => "text/plain" }.freeze
HELD = [] # what is not to be closed by the garbage collector
RACK3 = Rack.release.to_i >= 3

ACTIONS = {
  "/env" => lambda do |env|
    facts = env.select { |name, _| name.start_with?("rack.", "HTTPS", "SERVER_SOFTWARE", "PATH_INFO", "SCRIPT_NAME") }
    [200, TEXT.dup, [facts.map { |name, value| "#{name}=#{value.class} #{value.is_a?(String) || value == true || value == false ? value : ''}\n" }.join]]
  end,
  "/enumerable" => ->(_env) { [200, TEXT.dup, Body.new(%w[a b c])] },
  "/utf8" => ->(_env) { [200, TEXT.merge("x-name" => "\u00e9"), Body.new(["\u20ac".dup, "\xff".b])] },
  "/cookies" => lambda do |_env|
    [200, TEXT.merge("set-cookie" => RACK3 ? ["a=1", "b=2"] : "a=1\nb=2"), ["cookies"]]
  end,
  "/errors" => lambda do |env|
    env["rack.errors"].puts("to rack.errors")
    env["rack.errors"].write("more\n")
    env["rack.errors"].flush
    [200, TEXT.dup, ["errors"]]
  end,
  "/input" => lambda do |env|
    input = env["rack.input"]
    first = input.gets.to_s
    second = input.read(3).to_s
    rest = []
    input.each { |line| rest << line }
    again = ""
    if input.respond_to?(:rewind)
      input.rewind
      again = input.read.bytesize.to_s
    end
    [200, TEXT.dup, [[first, second, rest.join, input.read(1).inspect, again].join("|")]]
  end,
  "/hints" => lambda do |env|
    env["rack.early_hints"].call("link" => "</a.css>; rel=preload")
    [200, TEXT.dup, ["hinted"]]
  end,
  "/afterwards" => lambda do |env|
    env["rack.after_reply"] << -> { NOTE.call("after_reply") }
    env["rack.response_finished"] << ->(_env, status, _headers, error) { NOTE.call("finished #{status} #{error.inspect}") }
    [200, TEXT.dup, ["done"]]
  end
}.freeze

RAW = {
  "/nul" => ->(_env) { [200, { "x-nul" => "a\0b" }, []] },
  "/no-name" => ->(_env) { [200, { "" => "a" }, []] },
  "/too-long" => ->(_env) { [200, { "x-long" => "a" * 200_000 }, []] },
  "/file" => ->(_env) { [200, TEXT.dup, Body.new(["never read"], path: ENV.fetch("FEATURES_FILE"))] },
  "/callable" => ->(_env) { [200, TEXT.dup, proc { |stream| stream.write("one"); stream << "two"; stream.close }] },
  "/kept" => lambda do |env|
    go, late = env["QUERY_STRING"].split(",")
    body = proc do |stream|
      stream.write("one") unless late
      Thread.new do
        sleep 0.05 if late
        stream.write("one") if late
        sleep 0.002 until File.exist?(go)
        stream.close
      end
    end
    [200, TEXT.merge("content-length" => "3"), body]
  end,
  "/later" => lambda do |env|
    go = env["QUERY_STRING"]
    body = proc do |stream|
      stream.write("one")
      Thread.new do
        sleep 0.002 until File.exist?(go)
        stream.write("two")
        stream.close
      end
    end
    [200, TEXT.dup, body]
  end,
  "/joined" => lambda do |_env|
    body = proc do |stream|
      stream.write("one")
      Thread.new do
        stream.write("two")
        stream.close
      end.join
    end
    [200, TEXT.dup, body]
  end,
  "/partial" => ->(_env) { [200, TEXT.merge("rack.hijack" => ->(io) { io.write("hijacked"); io.close }), []] },
  "/tunnel" => lambda do |_env|
    talk = lambda do |io|
      io.write("welcome\n")
      Thread.new { io.write("you said #{io.gets}"); io.close }
    end
    [101, { "connection" => "upgrade", "upgrade" => "echo", "rack.hijack" => talk }, []]
  end,
  "/full" => lambda do |env|
    io = env["rack.hijack"].call
    io.write("HTTP/1.1 101 Switching Protocols\r\n\r\n")
    Thread.new { io.write("you said #{io.gets}"); io.close }
    [-1, {}, []]
  end,
  "/taken" => lambda do |env|
    io = env["rack.hijack"].call
    io.write("taken")
    HELD << io
    raise "behind the hijack" if env["QUERY_STRING"] == "raise"

    io.close
    [-1, {}, []]
  end,
  "/switched" => lambda do |_env|
    talk = lambda do |io|
      io.write("taken")
      HELD << io
      raise "behind the hijack"
    end
    [101, { "connection" => "upgrade", "upgrade" => "echo", "rack.hijack" => talk }, []]
  end,
  "/pipe" => ->(env) { [200, TEXT.dup, Body.new(["read"], path: env["QUERY_STRING"])] },
  "/made-up" => ->(env) { [200, TEXT.dup, Body.new([File.binread(env["QUERY_STRING"])], path: env["QUERY_STRING"])] },
  "/length" => lambda do |env|
    length = { "array" => ["5"], "spaces" => " 5 ", "number" => 5 }.fetch(env["QUERY_STRING"])
    [200, TEXT.merge("content-length" => length), ["hello"]]
  end,
  "/ticks" => lambda do |env|
    env["rack.response_finished"] << ->(_env, status, _headers, error) { NOTE.call("finished #{status} #{error.class}") }
    ticks = Enumerator.new { |chunks| loop { chunks << "tick" } }
    [200, TEXT.dup, env["QUERY_STRING"] == "stream" ? proc { |stream| ticks.each { |tick| stream << tick } } : Body.new(ticks)]
  end,
  "/duet" => lambda do |_env|
    body = proc do |stream|
      heard = 0
      listener = Thread.new do
        begin
          loop { heard += stream.readpartial(4096).bytesize }
        rescue EOFError
          nil
        end
      end
      stream.write(format("%08d", heard)) while listener.alive?
      stream.close
    end
    [200, TEXT.dup, body]
  end,
  "/chunked" => ->(_env) { [200, TEXT.merge("transfer-encoding" => "chunked"), Body.new(%W[5\r\nhel lo\r\n 6\r\n\ world\r\n0\r\n\r\n])] },
  "/oob" => ->(_env) { [200, TEXT.merge("X-Passenger-Request-OOB-Work" => "true"), ["oob"]] },
  "/no-path" => ->(_env) { [200, TEXT.dup, Body.new(["read"]).tap { |body| body.define_singleton_method(:to_path) { nil } }] },
  "/answers" => lambda do |_env|
    body = proc do |stream|
      begin
        loop { stream.write("got #{stream.readpartial(4096, String.new)}") }
      rescue EOFError
        stream.close
      end
    end
    [200, TEXT.dup, body]
  end,
  "/emptied" => ->(env) { env.clear; [200, TEXT.dup, ["emptied"]] },
  "/any-name" => ->(_env) { eval("raise 'caf\u00e9'", binding, "\xe9.rb".b) },
  "/thread-exit" => ->(_env) { Thread.exit },
  "/meet" => lambda do |env|
    mine, theirs = env["QUERY_STRING"].split(",")
    File.write(mine, "")
    sleep 0.002 until File.exist?(theirs)
    [200, TEXT.dup, ["met"]]
  end,
  "/fork" => lambda do |env|
    child = fork
    env["QUERY_STRING"] == "exit" ? exit(3) : raise("the child") if child.nil?
    [200, TEXT.dup, [Process.wait2(child)[1].exitstatus.to_s]]
  end,
  "/nothing" => ->(_env) {},
  "/cause" => lambda do |_env|
    begin
      Integer("x")
    rescue ArgumentError
      raise "the outer error"
    end
  end
}.freeze

linted = Rack::Lint.new(->(env) { ACTIONS.fetch(env["PATH_INFO"]).call(env) })
run ->(env) { (RAW[env["PATH_INFO"]] || linted).call(env) }
