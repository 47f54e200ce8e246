# frozen_string_literal: true

# The control connection.

module PassengerTrio
  # Messages to and from the supervisor: one JSON object a line.
  class Control
    attr_reader :io, :descriptors
    # Messages that came while nobody was there to act on them.
    attr_reader :pending

    # :raises SystemCallError: nobody listens there.
    def initialize(path, role)
      @io = UNIXSocket.new(path)
      @role = role
      @partial = "".b
      @pending = []
      @descriptors = [] # each "fork" message brought one, in order
      PassengerTrio.own(@io)
    end

    def tell(type, **members)
      @io.write(one_line({ type: type }.merge(members)))
    rescue SystemCallError, IOError
      nil # The supervisor is gone. Whoever reads from this connection learns it there, and acts.
    end

    # Wait for messages: one or more, or none when only a part of a line came.
    #
    # :raises Hangup:
    def read
      @partial << receive
      *lines, @partial = @partial.split("\n", -1)
      raise Hangup if @partial.nil? || @partial.bytesize >= MAX_LINE

      lines.map { |line| Json.read(line.force_encoding(Encoding::UTF_8)) }.select { |message| message.fetch("type") }
    rescue SystemCallError, IOError, ArgumentError, KeyError, NoMethodError
      raise Hangup
    end

    # Say hello; return the options.
    #
    # :raises Hangup:
    def greet(token)
      version = RUBY_ENGINE == "ruby" ? RUBY_VERSION : "#{RUBY_VERSION} (#{RUBY_ENGINE} #{RUBY_ENGINE_VERSION})"
      tell("hello", token: token, contract: CONTRACT, role: @role, language: "ruby", version: version, pid: Process.pid)
      loop do
        @pending.concat(read)
        at = @pending.index { |message| message["type"] == "options" }
        return @pending.delete_at(at) if at
      end
    end

    # Report a step of the journey.
    def step(name, begun = PassengerTrio.now)
      tell("step", name: name, state: "in_progress")
      state = "errored"
      result = yield
      state = "performed"
      result
    rescue Leave
      state = nil
      raise
    ensure
      tell("step", name: name, state: state, duration: PassengerTrio.now - begun) if state
    end

    private

    def receive
      return PassengerTrio.read_some(@io) unless @role == "preloader" && RUBY_ENGINE == "ruby"

      # What socket.rb calls recvmsg.
      data, _, _, *controls = @io.__send__(:__recvmsg, MAX_LINE, 0, 256, true)
      controls.each { |control| @descriptors.concat(control.unix_rights || []) }
      raise Hangup if data.nil? || data.empty?

      data
    end

    # What would be too long is cut at the front of its longest text: the end says what happened.
    def one_line(message)
      line = "#{Json.write(message)}\n"
      while line.bytesize > MAX_LINE
        name, text = message.max_by { |_, member| member.is_a?(String) ? member.bytesize : 0 }
        text = PassengerTrio.utf8(text)
        # One character takes up to 6 bytes in JSON, so this may need a few rounds.
        message[name] = "[...]#{text[(5 + [64, [line.bytesize - MAX_LINE, text.length / 2].min].max)..-1]}"
        line = "#{Json.write(message)}\n"
      end
      line
    end
  end
end
