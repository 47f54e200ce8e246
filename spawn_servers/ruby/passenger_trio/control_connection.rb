# frozen_string_literal: true

# The control connection to the supervisor: CONTRACT.md, part "The control connection".
#
# Knows the lines, the handshake and the steps of a start. What a message orders is decided by its reader:
# connection_watcher.rb in a worker, preloader.rb in a preloader.
#
# Laws:
#
# * Sending never raises. The reader of the connection notices that the supervisor is gone, and acts.
# * No line is longer than MAX_LINE. The longest text is cut at its front: its end says what happened.

module PassengerTrio
  class ControlConnection
    attr_reader :io
    attr_reader :descriptors # one per "fork" message, in order
    attr_reader :pending # messages that arrived during the handshake

    # :raises SystemCallError: nobody listens on +path+.
    def initialize(path, role)
      @io = UNIXSocket.new(path)
      @role = role
      @partial_line = "".b
      @pending = []
      @descriptors = []
      PassengerTrio.close_on_fork(@io)
    end

    # Returns whether the supervisor can read it.
    def send_message(type, **members)
      @io.write(encode_line({ type: type }.merge(members)))
      true
    rescue SystemCallError, IOError
      false
    end

    # Answer a "backtrace" message.
    def answer_backtrace(message)
      send_message("backtrace", id: message["id"], text: Backtraces.text)
    end

    # Wait for data. Returns the messages that are complete: none, if only a part of a line arrived.
    #
    # :raises ControlConnectionLost:
    def read_messages
      @partial_line << receive
      *lines, @partial_line = @partial_line.split("\n", -1)
      raise ControlConnectionLost if @partial_line.nil? || @partial_line.bytesize >= MAX_LINE

      messages = lines.map { |line| Json.parse(line.force_encoding(Encoding::UTF_8)) }
      messages.select { |message| message.fetch("type") }
    rescue SystemCallError, IOError, ArgumentError, KeyError, NoMethodError
      raise ControlConnectionLost
    end

    # Send "hello", wait for "options" and return them.
    #
    # :raises ControlConnectionLost:
    def shake_hands(token)
      version = RUBY_VERSION
      version += " (#{RUBY_ENGINE} #{RUBY_ENGINE_VERSION})" unless RUBY_ENGINE == "ruby"
      send_message("hello", token: token, contract: CONTRACT_VERSION, role: @role, language: "ruby", version: version, pid: Process.pid)
      loop do
        @pending.concat(read_messages)
        index = @pending.index { |message| message["type"] == "options" }
        return @pending.delete_at(index) if index
      end
    end

    # Run the block and report it as a step of the start.
    def step(name, started_at = PassengerTrio.now)
      send_message("step", name: name, state: "in_progress")
      state = "errored"
      result = yield
      state = "performed"
      result
    rescue ProcessStopping
      state = nil
      raise
    ensure
      send_message("step", name: name, state: state, duration: PassengerTrio.now - started_at) if state
    end

    private

    def receive
      return PassengerTrio.read_some(@io) unless @role == "preloader" && RUBY_ENGINE == "ruby"

      # BasicSocket#recvmsg of socket.rb calls this. We load only socket.so (see passenger_trio.rb).
      data, _, _, *controls = @io.__send__(:__recvmsg, MAX_LINE, 0, 256, true)
      controls.each { |control| @descriptors.concat(control.unix_rights || []) }
      raise ControlConnectionLost if data.nil? || data.empty?

      data
    end

    def encode_line(message)
      line = "#{Json.generate(message)}\n"
      while line.bytesize > MAX_LINE
        name, text = message.max_by { |_, member| member.is_a?(String) ? member.bytesize : 0 }
        text = PassengerTrio.utf8(text)
        # A character takes up to 6 bytes in JSON, so one cut may not be enough.
        message[name] = "[...]#{text[(5 + [64, [line.bytesize - MAX_LINE, text.length / 2].min].max)..-1]}"
        line = "#{Json.generate(message)}\n"
      end
      line
    end
  end
end
