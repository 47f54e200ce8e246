# frozen_string_literal: true

# The socket, the streams, the threads.

module PassengerTrio
  # Serves sessions on a Unix socket, +threads+ streams at a time.
  class Worker
    attr_reader :rack3

    def initialize(application, options)
      @application = application
      @threads = [1, options["threads"]].max
      @path = File.join(options["socket_dir"], options["socket_name"])
      @rack3 = Rack.release.to_i >= 3
      @nothing = Whole.new
      @accepting = Mutex.new
      @lending = Mutex.new
      @came_back = ConditionVariable.new
      @lent = {}
      @crew = []
      @ended = Queue.new # its threads, as they end
      @common = {
        "GATEWAY_INTERFACE" => "CGI/1.1", "SERVER_SOFTWARE" => options["server_software"], "rack.version" => [1, 3],
        "rack.errors" => $stderr, "rack.multithread" => @threads > 1, "rack.multiprocess" => RUBY_ENGINE == "ruby",
        "rack.run_once" => false, "rack.hijack?" => true
      }.flatten.freeze # names and values in turn
    end

    def listen
      @pid = Process.pid
      @listener = UNIXServer.new(@path)
      File.chmod(0o600, @path)
      @stopped, @stop = IO.pipe
      PassengerTrio.own(@listener, @stopped, @stop)
    end

    # Not in a process that the application forked in a request, and which has come back out of it: the socket and the exit are not its own.
    def ours?
      @pid == Process.pid
    end

    def sockets
      [{ address: "unix:#{@path}", protocol: "session", concurrency: @threads }]
    end

    # Until +stop+, and until the sessions in hand are finished. In the main thread.
    def run
      if @threads == 1
        serve
      else
        @threads.times { man }
        until @crew.empty?
          @crew.delete(thread = @ended.pop)
          # One that the application has ended (Thread.exit) is replaced: so many sessions at a time were promised.
          man unless thread.value
        end
      end
      @lending.synchronize { @came_back.wait(@lending) until @lent.empty? }
    end

    # Take no new sessions; finish those whose heads have arrived. From any thread, any number of times.
    #
    # Nobody can connect when the path is gone; who has connected is in the kernel's queue, or waits for us as a stream. Whoever waits for a
    # stream or for a head waits for the end of this pipe as well, and looks first whether something has come: what the
    # supervisor sent before it told us to stop is there by then.
    def stop
      File.unlink(@path)
    rescue SystemCallError
      nil
    ensure
      @stop.close unless @stop.closed?
    end

    # Raise an exception in the sessions in hand. False: they are the main thread's.
    def cancel(error)
      return false if @threads == 1

      PassengerTrio.say("passenger_trio: the process is to end, and the requests that have not are cancelled\n") unless @crew.empty?
      @crew.dup.each { |thread| thread.raise(error) if thread.alive? }
    end

    # End the threads, sessions and all. False: there are none.
    def interrupt
      @threads != 1 && @crew.each(&:kill)
    end

    # A stream is the application's from here: we neither close it nor wait for it.
    def give_away(conn)
      PassengerTrio.disclaim(conn)
    end

    # A stream on which somebody else writes frames, until +take_back+.
    def lend(conn)
      @lending.synchronize { @lent[conn] = true }
    end

    def take_back(conn)
      hang_up(conn)
      @lending.synchronize do
        @lent.delete(conn)
        @came_back.broadcast
      end
    end

    private

    def man
      @crew << Thread.new do
        begin
          serve
          true
        rescue Leave
          true
        ensure
          @ended << Thread.current
        end
      end
    end

    # One thread: accept a stream, serve it to its end, and again.
    def serve
      PassengerTrio.call_event(:starting_request_handler_thread)
      while (conn = accept)
        PassengerTrio.own(conn)
        kept = true
        begin
          kept = serve_stream(conn)
        rescue SystemCallError, IOError
          nil # The stream broke between two sessions.
        ensure
          # One that was handed over belongs to somebody else.
          hang_up(conn) unless kept == :handed_over
        end
      end
    rescue IOError
      nil # We are in a process that the application forked, and closed everything.
    end

    def accept
      @accepting.synchronize do
        ready, = IO.select([@listener, @stopped])
        return @listener.accept if ready.include?(@listener)
      end
      nil
    rescue Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS, Errno::ECONNABORTED, Errno::EAGAIN => e
      PassengerTrio.say("passenger_trio: cannot accept a connection: #{e.message}\n")
      sleep 0.1
      retry
    end

    def hang_up(conn)
      # A process that the application forked may hold a copy, so closing alone would not end it.
      conn.shutdown(2)
    rescue SystemCallError, IOError
      nil
    ensure
      PassengerTrio.let_go(conn)
    end

    # The hot loop. A request without a body costs one wait, one read, one pass over its head, the application, and one write.
    def serve_stream(conn)
      buffer = String.new(capacity: BLOCK)
      waits = [conn, @stopped]
      behind = nil
      loop do
        if behind
          buffer = behind
        else
          ready, = IO.select(waits)
          return unless ready.include?(conn)

          PassengerTrio.read_some(conn, buffer)
        end
        kind, length = buffer.unpack("CN")
        size = buffer.bytesize
        if kind == HEAD && length && size >= length + 5
          head = buffer.byteslice(5, length)
          arrived = buffer.byteslice(length + 5, size)
        else
          head, arrived = slow_head(conn, buffer.dup)
        end
        return if head.nil?

        session = begin_session(conn, head, arrived)
        if session && session.run(@application)
          behind = session.behind
          next
        end
        return session && session.handed_over ? :handed_over : nil
      end
    end

    # nil: what came is not in the contract.
    def begin_session(conn, head, arrived)
      texts = head.split("\0", -1)
      return if texts.pop != "" || texts.size.odd?

      # All at once, ours behind theirs. As many names as pairs: none twice, and none of ours among theirs.
      texts.concat(@common)
      env = texts.size < 1000 ? Hash[*texts] : texts.each_slice(2).to_h
      return if env.size * 2 != texts.size || env.key?("")
      return unless env["REQUEST_METHOD"] && env["REQUEST_URI"] && env["SCRIPT_NAME"] && env["PATH_INFO"] && env["QUERY_STRING"] && env["SERVER_NAME"] &&
                    env["SERVER_PORT"] && env["SERVER_PROTOCOL"] && env["REMOTE_ADDR"] && env["REMOTE_PORT"] && env["REQUEST_SCHEME"]

      if arrived == THE_END
        body = @nothing
        env["rack.input"] = StringIO.new("".b)
      else
        body = Input.new(conn, arrived)
        return if body.broken

        env["rack.input"] = input_for(body)
      end
      scheme = env["REQUEST_SCHEME"]
      env["HTTPS"] = "on" if scheme == "https"
      env["rack.url_scheme"] = scheme
      env["rack.after_reply"] = []
      env["rack.response_finished"] = []
      session = Session.new(self, conn, body, env)
      env["rack.hijack"] = session
      env["rack.early_hints"] = session.method(:early_hints)
      return session unless body.aborted

      conn.write([END_, 1, 1].pack("CNC"))
      nil
    end

    def input_for(body)
      return StringIO.new(body.read) if body.ended && !body.aborted

      @rack3 ? body : RewindableInput.new(body)
    end

    # [payload of the head, what came behind it] of a head that came in pieces; nil if it is none.
    def slow_head(conn, data)
      loop do
        # The type and the length are judged as soon as they are here: garbage is not waited for.
        kind, length = data.unpack("CN")
        return if kind != HEAD
        return if length && length > MAX_HEAD
        return [data.byteslice(5, length), data.byteslice(length + 5, data.bytesize)] if length && data.bytesize >= length + 5

        data << PassengerTrio.read_some(conn)
      end
    end
  end
end
