# frozen_string_literal: true

# Bodies that the application writes itself: streaming bodies (Rack 3), the partial and the full hijack, upgrades.
#
# Knows who owns a stream: the session; another thread, until it closes the body (the worker keeps a "handed over" stream
# in its table); or the application for good (after UPGRADE).
#
# Laws:
#
# * Whether a streaming body is closed by the session or handed over to another thread is decided under the lock of its
#   ResponseStream. If it was closed before the application returned, the stream carries the next session.
# * A stream that was handed over, or given away, is never used for another session.

module PassengerTrio
  class Session
    # +env["rack.hijack"].call+: the application takes the connection over, before or in place of a response.
    def call
      return @env["rack.hijack_io"] if @handed_over
      raise IOError, "the response has begun" if @begun

      give_stream_away
      write([UPGRADE, 0].pack("CN"))
      @env["rack.hijack_io"] = @conn
    end

    # For ResponseStream.
    def stream_write(chunk)
      raise ClientGone, "the client is gone" if @client_gone
      raise IOError, "the stream is closed" if @closed

      send_chunk(chunk)
      raise ClientGone, "the client is gone" if @client_gone
    ensure
      # The exception may end the thread that writes, so nobody may close the body.
      release if @client_gone && @handed_over
    end

    # For ResponseStream.
    def stream_close
      return if @closed

      @closed = true
      @flags |= CLOSE_STREAM if @handed_over
      begin
        send_end unless @done || @client_gone
      ensure
        release if @handed_over
      end
    end

    # For ResponseStream.
    def stream_input
      @rack_input
    end

    private

    # Let +callable+ write the body. With status 101 it gets the connection itself.
    def send_streaming(callable)
      if @switching_protocols
        give_stream_away
        write([RESPONSE, @head.bytesize].pack("CN") << @head << [UPGRADE, 0].pack("CN"))
        return callable.call(@conn)
      end
      return send_end if @no_body

      @begun = true
      write([RESPONSE, @head.bytesize].pack("CN") << @head)
      stream = ResponseStream.new(self)
      callable.call(stream)
      # If the body is not closed, another thread will write to it and close it.
      stream.unless_closed do
        next if @client_gone || @done # Complete by its Content-Length: the stream may already be in use again.

        @worker.hand_over(@conn)
        @handed_over = true
      end
    end

    # The connection is the application's from here on. The request's body is read to its end first.
    def give_stream_away
      raise ClientGone, "the client is gone" unless @body.discard_all

      @handed_over = @begun = true
      @worker.give_away(@conn)
    end

    # A stream that was handed over has ended.
    def release
      @worker.close_handed_over(@conn)
    end
  end

  # What a streaming body writes to. Any thread may use it, also after the application has returned.
  class ResponseStream
    def initialize(session)
      @session = session
      @lock = Mutex.new
      @closed = false
    end

    def write(*parts)
      @lock.synchronize { parts.sum { |part| part.to_s.bytesize.tap { @session.stream_write(part.to_s) } } }
    end

    def <<(part)
      write(part)
      self
    end

    def write_nonblock(part, **)
      write(part)
    end

    def read(*arguments)
      input.read(*arguments)
    end

    def gets
      input.gets
    end

    # What has arrived: a client may wait for an answer to it before it sends the rest.
    def readpartial(*arguments)
      input.readpartial(*arguments)
    end

    # Blocks, because nobody can wait for this stream with IO.select.
    def read_nonblock(*arguments, exception: true)
      readpartial(*arguments)
    rescue EOFError => e
      raise if exception || e.is_a?(ClientGone)
    end

    def flush
      self
    end

    # Run the block, unless the stream is closed. Nobody closes it meanwhile.
    def unless_closed
      @lock.synchronize { yield unless @closed }
    end

    def close_read; end

    def close_write
      close
    end

    def close(*)
      @lock.synchronize do
        next if @closed

        @closed = true
        @session.stream_close
      end
    rescue ClientGone
      nil
    end

    def closed?
      @closed
    end

    private

    def input
      @session.stream_input
    end
  end
end
