# The application that passenger_trio.testing.conformance drives; the paths are described there.

LOADED_BY = Process.pid
TEXT = { "content-type" => "text/plain" }.freeze

if (hook_file = ENV["CONFORMANCE_HOOK_FILE"])
  at_exit { File.open(hook_file, "a") { |file| file.write("#{Process.pid}\n") } }
end

case ENV["CONFORMANCE_START"]
when "raise" then raise "conformance: raised while it was loaded"
when "raise-long" then raise "conformance: #{"\u0001\u20ac" * 100_000} the end"
when "exit" then exit 3
when "sleep" then sleep 60
when "thread" then Thread.new { sleep 60 }
end

# A body that yields, and can be told that it is over.
class Chunks
  def initialize(note = nil, &block)
    @note = note
    @block = block
  end

  def each(&block)
    @block.call(block)
  end

  def close
    File.open(@note, "a") { |file| file.write("closed\n") } if @note
  end
end

# Answers in upper case on a connection that was taken over, in a thread of its own.
def shout(io, note)
  Thread.new do
    begin
      loop { io.write(io.readpartial(65_536).upcase) }
    rescue EOFError, SystemCallError
      File.write(note, "ended\n")
    ensure
      io.close
    end
  end
end

def text(data, headers = {})
  [200, TEXT.merge(headers), [data]]
end

ACTIONS = {
  "/hello" => ->(_env) { text("hello") },
  "/meta" => ->(env) { text(env.select { |_, value| value.is_a?(String) }.sort.map { |pair| "#{pair.join('=')}\n".b }.join) },
  "/echo" => ->(env) { text(env["rack.input"].read) },
  "/deaf" => ->(_env) { text("deaf") },
  "/chunks" => ->(_env) { [200, TEXT, Chunks.new { |out| %w[one two three].each { |part| out.call(part) } }] },
  "/gate" => lambda do |env|
    body = Chunks.new do |out|
      out.call("one")
      sleep 0.002 until File.exist?(env["QUERY_STRING"])
      out.call("two")
    end
    [200, TEXT, body]
  end,
  "/deaf-gate" => lambda do |env|
    body = Chunks.new do |out|
      out.call("deaf")
      sleep 0.002 until File.exist?(env["QUERY_STRING"])
    end
    [200, TEXT.merge("content-length" => "4"), body]
  end,
  "/endless" => ->(env) { [200, TEXT, Chunks.new(env["QUERY_STRING"]) { |out| loop { out.call("x" * 1000) } }] },
  "/large" => ->(_env) { text("x" * 20_000_000) },
  "/raise" => ->(_env) { raise ArgumentError, "conformance: raised before the head" },
  "/raise-late" => lambda do |_env|
    body = Chunks.new do |out|
      out.call("begun")
      raise ArgumentError, "conformance: raised after the head"
    end
    [200, TEXT, body]
  end,
  "/exit" => ->(_env) { exit 4 },
  "/nul" => ->(_env) { text("nul", "x-nul" => "a\0b") },
  "/short" => ->(_env) { text("01234", "content-length" => "10") },
  "/long" => ->(_env) { text("0123456789", "content-length" => "5") },
  "/status" => ->(env) { [env["QUERY_STRING"].to_i, TEXT, ["body"]] },
  "/print" => lambda do |env|
    puts env["QUERY_STRING"]
    text("printed")
  end,
  "/sleep" => lambda do |env|
    sleep env["QUERY_STRING"].to_f
    text("done")
  end,
  "/spin" => lambda do |env|
    till = Process.clock_gettime(Process::CLOCK_MONOTONIC) + env["QUERY_STRING"].to_f
    nil while Process.clock_gettime(Process::CLOCK_MONOTONIC) < till
    text("done")
  end,
  "/raw" => lambda do |env|
    note = env["QUERY_STRING"]
    [101, { "upgrade" => "websocket", "connection" => "Upgrade", "rack.hijack" => ->(io) { shout(io, note) } }, []]
  end,
  "/full" => lambda do |env|
    env["rack.hijack"].call
    env["rack.hijack_io"].write("HTTP/1.1 200 OK\r\n\r\n")
    shout(env["rack.hijack_io"], env["QUERY_STRING"])
    [200, {}, []]
  end,
  "/process" => lambda do |_env|
    ignored = %w[INT TERM CHLD].select do |name|
      found = trap(name, "DEFAULT")
      trap(name, found || "IGNORE")
      %w[IGNORE SIG_IGN].include?(found)
    end
    facts = {
      pid: Process.pid, loaded_by: LOADED_BY, random: rand, signals: ignored.map { |name| Signal.list[name] }.join(" "),
      variables: ENV.keys.sort.join(" ")
    }
    text(facts.map { |pair| "#{pair.join('=')}\n" }.join)
  end
}.freeze

run(->(env) { ACTIONS.fetch(env["PATH_INFO"]).call(env) })
