# frozen_string_literal: true

# The worker: its socket, the streams that the supervisor opens, and the threads that serve them.
#
# Knows the head of a request and how a stream begins and ends. A session is session.rb's; when to stop is connection_watcher.rb's.
#
# Laws:
#
# * A small session costs one wait, one read and one write.
# * Whatever arrives that is not in the contract closes its stream. It is never answered, and the worker lives.
# * The worker promised +threads+ sessions at a time. A thread that the application ends (Thread.exit) is replaced.
# * A stop takes what has arrived: whoever waits for a stream or a head also waits for the end of the stop pipe, and looks
#   at the stream first. What the supervisor sent before "shutdown" is there by then.

module PassengerTrio
  class Worker
    ACCEPT_PAUSE = 0.1 # seconds, after an error that says "not now"

    attr_reader :rack3 # whether the application's Rack is version 3 or newer

    def initialize(application, options)
      @application = application
      @thread_count = [1, options["threads"]].max
      @path = File.join(options["socket_dir"], options["socket_name"])
      @rack3 = Rack.release.to_i >= 3
      @empty_body = EmptyBody.new
      @accepting = Mutex.new
      @handing_over = Mutex.new
      @handed_over_closed = ConditionVariable.new
      @handed_over = {} # streams that another thread will close
      @threads = []
      @ended_threads = Queue.new
      # The same in every env: names and values in turn.
      @common_env = {
        "GATEWAY_INTERFACE" => "CGI/1.1", "SERVER_SOFTWARE" => options["server_software"], "rack.version" => [1, 3],
        "rack.errors" => $stderr, "rack.multithread" => @thread_count > 1, "rack.multiprocess" => RUBY_ENGINE == "ruby",
        "rack.run_once" => false, "rack.hijack?" => true
      }.flatten.freeze
    end

    def listen
      @pid = Process.pid
      @listener = UNIXServer.new(@path)
      File.chmod(0o600, @path)
      @stop_reader, @stop_writer = IO.pipe
      PassengerTrio.close_on_fork(@listener, @stop_reader, @stop_writer)
    end

    # False in a process that the application forked during a request and that has returned from it. It does not own the
    # socket, and does not run our end.
    def ours?
      @pid == Process.pid
    end

    def sockets
      [{ address: "unix:#{@path}", protocol: "session", concurrency: @thread_count }]
    end

    # Serve until +stop+, and until the sessions in hand have ended. Called in the main thread.
    def run
      if @thread_count == 1
        serve
      else
        @thread_count.times { start_thread }
        until @threads.empty?
          @threads.delete(thread = @ended_threads.pop)
          start_thread unless thread.value
        end
      end
      @handing_over.synchronize { @handed_over_closed.wait(@handing_over) until @handed_over.empty? }
    end

    # Take no new sessions, and finish those whose heads have arrived. Any thread may call it, any number of times.
    #
    # Without the path nobody can connect. Connections that were made before are in the kernel's queue.
    def stop
      File.unlink(@path)
    rescue SystemCallError
      nil
    ensure
      @stop_writer.close unless @stop_writer.closed?
    end

    # Raise an exception in the sessions that still run. False: they run in the main thread.
    def cancel(error)
      return false if @thread_count == 1

      unless @threads.empty?
        PassengerTrio.log("passenger_trio: cancelling the requests that still run, because the process is stopping\n")
      end
      @threads.dup.each { |thread| thread.raise(error) if thread.alive? }
    end

    # End the threads and their sessions. False: there are none.
    def kill_threads
      @thread_count != 1 && @threads.each(&:kill)
    end

    # The stream belongs to the application: we neither close it nor wait for it.
    def give_away(conn)
      PassengerTrio.keep_open_on_fork(conn)
    end

    # Another thread writes frames to the stream, until +close_handed_over+.
    def hand_over(conn)
      @handing_over.synchronize { @handed_over[conn] = true }
    end

    def close_handed_over(conn)
      close_stream(conn)
      @handing_over.synchronize do
        @handed_over.delete(conn)
        @handed_over_closed.broadcast
      end
    end

    private

    # The thread's value: true if it ended because of a stop.
    def start_thread
      @threads << Thread.new do
        begin
          serve
          true
        rescue ProcessStopping
          true
        ensure
          @ended_threads << Thread.current
        end
      end
    end

    # In each thread: accept a stream, serve it to its end, and again.
    def serve
      PassengerTrio.call_event(:starting_request_handler_thread)
      while (conn = accept)
        PassengerTrio.close_on_fork(conn)
        outcome = nil
        begin
          outcome = serve_stream(conn)
        rescue SystemCallError, IOError
          nil # The stream broke between two sessions.
        ensure
          close_stream(conn) unless outcome == :handed_over
        end
      end
    rescue IOError
      nil # The application forked, and this is the child: our descriptors are closed.
    end

    # nil: the worker stops.
    def accept
      @accepting.synchronize do
        ready, = IO.select([@listener, @stop_reader])
        return @listener.accept if ready.include?(@listener)
      end
      nil
    rescue Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS, Errno::ECONNABORTED, Errno::EAGAIN => e
      PassengerTrio.log("passenger_trio: cannot accept a connection: #{e.message}\n")
      sleep ACCEPT_PAUSE
      retry
    end

    # shutdown and close: a process that the application forked may hold a copy of the descriptor.
    def close_stream(conn)
      conn.shutdown(2)
    rescue SystemCallError, IOError
      nil
    ensure
      PassengerTrio.close_quietly(conn)
    end

    # The hot loop. A request without a body costs one wait, one read, one pass over its head, the application and one write.
    #
    # :raises SystemCallError, IOError: the stream broke.
    def serve_stream(conn)
      buffer = String.new(capacity: READ_SIZE)
      waits = [conn, @stop_reader]
      next_head = nil
      loop do
        if next_head
          buffer = next_head
        else
          ready, = IO.select(waits)
          return unless ready.include?(conn)

          PassengerTrio.read_some(conn, buffer)
        end
        type, length = buffer.unpack("CN")
        size = buffer.bytesize
        if type == HEAD && length && size >= length + 5
          head = buffer.byteslice(5, length)
          arrived = buffer.byteslice(length + 5, size)
        elsif buffer == OOB_WORK_FRAME
          do_oob_work
          conn.write(END_FRAME)
          next_head = nil
          next
        else
          head, arrived = read_split_head(conn, buffer.dup)
        end
        return if head.nil?

        session = begin_session(conn, head, arrived)
        if session && session.run(@application)
          next_head = session.next_head
          next
        end
        return session && session.handed_over ? :handed_over : nil
      end
    end

    # What a hook raises is reported, and ends nothing.
    def do_oob_work
      PassengerTrio.call_event(:oob_work)
    rescue ProcessStopping
      raise
    rescue Exception => e # rubocop:disable Lint/RescueException
      PassengerTrio.log(Advice.backtrace_of(e))
    end

    # :param arrived: what was read behind the head.
    # :returns: nil if what arrived is not in the contract, or was aborted.
    def begin_session(conn, head, arrived)
      texts = head.split("\0", -1)
      return if texts.pop != "" || texts.size.odd?

      # One Hash of all. It has as many names as there are pairs, if no name comes twice and none of ours is among theirs.
      texts.concat(@common_env)
      env = texts.size < 1000 ? Hash[*texts] : texts.each_slice(2).to_h
      return if env.size * 2 != texts.size || env.key?("")
      return unless env["REQUEST_METHOD"] && env["REQUEST_URI"] && env["SCRIPT_NAME"] && env["PATH_INFO"] && env["QUERY_STRING"] &&
                    env["SERVER_NAME"] && env["SERVER_PORT"] && env["SERVER_PROTOCOL"] && env["REMOTE_ADDR"] && env["REMOTE_PORT"] &&
                    env["REQUEST_SCHEME"]

      if arrived == END_FRAME
        body = @empty_body
        env["rack.input"] = StringIO.new("".b)
      else
        body = RequestBody.new(conn, arrived)
        return if body.malformed

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

      conn.write([END_, 1, CLOSE_STREAM].pack("CNC"))
      nil
    end

    def input_for(body)
      return StringIO.new(body.read) if body.ended && !body.aborted

      @rack3 ? body : RewindableBody.new(body)
    end

    # [payload of the head, what was read behind it] of a head that comes in pieces; nil if it is malformed.
    def read_split_head(conn, data)
      loop do
        # Type and length are checked as soon as they are here: garbage is not waited for.
        type, length = data.unpack("CN")
        return if type != HEAD
        return if length && length > MAX_HEAD

        size = data.bytesize
        return [data.byteslice(5, length), data.byteslice(length + 5, size)] if length && size >= length + 5

        data << PassengerTrio.read_some(conn)
      end
    end
  end
end
