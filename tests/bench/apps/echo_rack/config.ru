# Echoes WebSocket messages by websocket-driver on a hijacked connection, as faye-websocket and Action Cable do.

require "websocket/driver"

class Echo
  attr_reader :env, :url

  def initialize(env)
    @env = env
    @url = "ws://#{env['HTTP_HOST']}#{env['REQUEST_URI']}"
    @driver = WebSocket::Driver.rack(self)
    @driver.on(:message) { |event| @driver.text(event.data) }
    @driver.on(:close) { @io.close }
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
    @io.close
  end
end

run(lambda do |env|
  next [200, { "Content-Type" => "text/plain" }, ["ok"]] unless WebSocket::Driver.websocket?(env)

  echo = Echo.new(env)
  Thread.new { echo.run }
  [-1, {}, []]
end)
