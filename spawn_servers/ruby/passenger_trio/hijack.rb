# frozen_string_literal: true

# Streaming bodies, the partial and the full hijack.

module PassengerTrio
  class Session
    # +env["rack.hijack"].call+: the application takes the connection over, before or instead of a response.
    def call
      return @env["rack.hijack_io"] if @handed_over
      raise IOError, "the response has begun" if @begun

      take_over
      push([UPGRADE, 0].pack("CN"))
      @env["rack.hijack_io"] = @conn
    end

    # For ResponseStream: a part of the body.
    def stream_write(chunk)
      raise ClientGone, "the client is gone" if @gone
      raise IOError, "the stream is closed" if @closed

      send_chunk(chunk)
      raise ClientGone, "the client is gone" if @gone
    ensure
      # Whoever writes may end by that, and close nothing.
      release if @gone && @handed_over
    end

    def stream_close
      return if @closed

      @closed = true
      @flags |= 1 if @handed_over
      begin
        send_end unless @done || @gone
      ensure
        release if @handed_over
      end
    end

    def stream_read
      @rack_input
    end

    private

    # A body that writes for itself (Rack 3), or the partial hijack. Of a 101 it gets the connection as it is.
    def stream(callable)
      if @front_only
        take_over
        push([RESPONSE, @head.bytesize].pack("CN") << @head << [UPGRADE, 0].pack("CN"))
        return callable.call(@conn)
      end
      return send_end if @no_body

      @begun = true
      push([RESPONSE, @head.bytesize].pack("CN") << @head)
      stream = ResponseStream.new(self)
      callable.call(stream)
      # If it is not closed yet it is written to from somewhere else from here on, and ends when it is closed there.
      stream.unless_closed do
        next if @gone || @done # it is whole by its Content-Length, and the stream may be used again: what is written now is too much

        @worker.lend(@conn)
        @handed_over = true
      end
    end

    # The connection is the application's from here: behind the request, whose body may still be on its way.
    def take_over
      raise ClientGone, "the client is gone" unless @input.skip

      @handed_over = @begun = true
      @worker.give_away(@conn)
    end

    # A stream that was handed over has ended.
    def release
      @worker.take_back(@conn)
    end
  end

  # What a streaming body writes to. It may be used from any thread, and after the application has returned.
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

    # What has come: a client may wait for an answer to it before it sends the rest.
    def readpartial(*arguments)
      input.readpartial(*arguments)
    end

    # It waits all the same: nobody could wait for this stream with IO.select.
    def read_nonblock(*arguments, exception: true)
      readpartial(*arguments)
    rescue EOFError => e
      raise if exception || e.is_a?(ClientGone)
    end

    def flush
      self
    end

    # Nobody closes it while the block runs.
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
      @session.stream_read
    end
  end
end
