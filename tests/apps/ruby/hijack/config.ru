# Applications that take the connection over: Rack's full and partial hijack, and a WebSocket by websocket-driver, which does what faye-websocket does.

require "websocket/driver"

TEXT = { "Content-Type" => "text/plain" }.freeze
SWITCH = { "Upgrade" => "websocket", "Connection" => "Upgrade" }.freeze
LOG = ENV["HIJACK_LOG"]

NOTE = ->(text) { File.open(LOG, "a") { |file| file.puts(text) } if LOG }

# Answers each piece in upper case, until the other side ends.
def echo(io)
  loop { io.write(io.readpartial(65_536).upcase) }
rescue EOFError
  NOTE.call("ended")
rescue SystemCallError => e
  NOTE.call(e.class)
ensure
  io.close
end

# What websocket-driver wants of a connection.
class Socket
  attr_reader :env, :url

  def initialize(env)
    @env = env
    @url = "ws://#{env['HTTP_HOST']}#{env['REQUEST_URI']}"
    @driver = WebSocket::Driver.rack(self)
    @driver.on(:message) { |event| answer(event.data) }
    @driver.on(:close) do |event|
      NOTE.call("closed #{event.code}")
      @io.close
    end
    env["rack.hijack"].call
    @io = env["rack.hijack_io"]
    @driver.start
  end

  def write(data)
    @io.write(data)
  end

  def run
    loop { @driver.parse(@io.readpartial(65_536)) }
  rescue IOError, SystemCallError
    NOTE.call("gone")
  ensure
    @io.close
  end

  private

  def answer(data)
    case data
    when "pid" then @driver.text(Process.pid.to_s)
    when "bye" then @driver.close("as you wish", 4000)
    when String then @driver.text(data.upcase)
    else @driver.binary(data)
    end
  end
end

ACTIONS = {
  "/pid" => ->(_env) { [200, TEXT.dup, [Process.pid.to_s]] },
  "/wish" => ->(env) { [200, TEXT.dup, [env.values_at("HTTP_CONNECTION", "HTTP_UPGRADE").inspect]] },
  "/full" => lambda do |env|
    io = env["rack.hijack"].call
    io.write("HTTP/1.1 202 Accepted\r\nContent-Length: 8\r\nConnection: close\r\n\r\nhijacked")
    io.close
    [-1, {}, []]
  end,
  "/body" => lambda do |env|
    body = env["rack.input"].read
    io = env["rack.hijack"].call
    io.write("HTTP/1.1 200 OK\r\n\r\n#{body.reverse}")
    io.close
    [-1, {}, []]
  end,
  "/raw" => lambda do |env|
    io = env["rack.hijack"].call
    io.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nready")
    Thread.new { echo(io) }
    [-1, {}, []]
  end,
  "/partial" => ->(_env) { [101, SWITCH.merge("rack.hijack" => ->(io) { Thread.new { echo(io) } }), []] },
  "/ticks" => lambda do |env|
    io = env["rack.hijack"].call
    io.write("HTTP/1.1 200 OK\r\n\r\n")
    Thread.new do
      loop do
        io.write("tick\n")
        sleep(0.01)
      end
    rescue SystemCallError => e
      NOTE.call(e.class)
      io.close
    end
    [-1, {}, []]
  end,
  "/dies" => lambda do |env|
    io = env["rack.hijack"].call
    io.write("HTTP/1.1 200 OK\r\n\r\nlast words")
    Process.kill(:KILL, Process.pid)
    sleep
  end,
  "/socket" => lambda do |env|
    return [426, TEXT.dup, ["a WebSocket only\n"]] unless WebSocket::Driver.websocket?(env)

    socket = Socket.new(env)
    Thread.new { socket.run }
    [-1, {}, []]
  end,
  "/poll" => lambda do |_env|
    body = Enumerator.new do |chunks|
      chunks << "waiting\n"
      sleep(0.01) until File.exist?(ENV.fetch("HIJACK_GATE"))
      chunks << "news\n"
    end
    [200, TEXT.dup, body]
  end,
  "/events" => lambda do |_env|
    events = Object.new
    def events.each
      number = 0
      loop do
        yield "data: #{number += 1}\n\n"
        sleep(0.01)
      end
    end

    def events.close
      NOTE.call("events closed")
    end
    [200, { "Content-Type" => "text/event-stream" }, events]
  end
}.freeze

run ->(env) { (ACTIONS[env["PATH_INFO"]] || ->(_) { [404, TEXT.dup, ["nothing there"]] }).call(env) }
