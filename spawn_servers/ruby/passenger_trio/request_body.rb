# frozen_string_literal: true

# +rack.input+: the request body, read from its frames as the application asks for it.
#
# Knows the frames behind a request's head, up to END_. The head itself is worker.rb's.
#
# Laws:
#
# * The body ends with its END_ frame, whatever its Content-Length says.
# * If the client is gone before that, reading raises ClientGone.
# * One thread reads at a time. A streaming body may read in one thread and write in another; the writer checks the client, too.
# * A malformed frame is rejected as soon as its first bytes show that: the rest is not awaited.

module PassengerTrio
  class RequestBody
    DISCARD_LIMIT = 1024 * 1024 # bytes of an unread body that are dropped so that the stream can be used again
    DISCARD_TIMEOUT = 0.2 # seconds
    FRAME_TYPES = [DATA, END_, ABORT].freeze

    attr_reader :ended # END_ has arrived
    attr_reader :aborted # the client is gone
    attr_reader :malformed # what arrived is not in the contract
    # What has arrived of the next request's head, or nil. The supervisor may send it as soon as it has the end of the response.
    attr_reader :next_head

    # :param arrived: what was read behind the head.
    def initialize(conn, arrived)
      @conn = conn
      @buffer = "".b
      @frame_left = 0 # bytes of the current frame that have not arrived
      @partial_header = "".b # of the next frame
      @ended = @aborted = @malformed = @response_ended = false
      @next_head = nil
      @reading = Mutex.new
      feed(arrived)
    end

    def read(length = nil, out = nil)
      raise ArgumentError, "negative length #{length}" if length && length.negative?

      data = @reading.synchronize do
        if length.nil?
          nil while receive_more
          take(@buffer.bytesize)
        else
          nil while @buffer.bytesize < length && receive_more
          @buffer.empty? && length.positive? ? nil : take(length)
        end
      end
      out ? out.replace(data || "") && data && out : data
    end

    def gets
      @reading.synchronize do
        from = 0
        until (at = @buffer.index("\n", from))
          from = @buffer.bytesize
          break unless receive_more
        end
        @buffer.empty? ? nil : take(at ? at + 1 : @buffer.bytesize)
      end
    end

    def each
      while (line = gets)
        yield line
      end
    end

    # What has arrived. Blocks only while that is nothing; nil at the end.
    def read_available(max = READ_SIZE)
      @reading.synchronize do
        receive_more if @buffer.empty?
        @buffer.empty? ? nil : take(max)
      end
    end

    # As a StringIO has it: for ResponseStream.
    def readpartial(max, out = nil)
      data = read_available(max) || raise(EOFError, "end of the request body")
      out ? out.replace(data) : data
    end

    def close; end

    def external_encoding
      Encoding::BINARY
    end

    # Read what has arrived, without blocking, to see whether the client is gone. The end of file is seen also behind a
    # body that nobody reads; no more than MAX_FRAME bytes of that are kept.
    def check_client
      return unless @reading.try_lock # The thread that reads sees it as well.

      begin
        receive_without_blocking
      ensure
        @reading.unlock
      end
    end

    # The end of the response is on its way, so the next head may follow.
    def response_ended!
      @response_ended = true
    end

    # Drop what the application has not read, within DISCARD_LIMIT and DISCARD_TIMEOUT. True: the stream can be used again.
    #
    # What has arrived is read, however late: the supervisor was told that it can use the stream again, and may have done so.
    def discard_rest
      return false unless @reading.try_lock # A thread of the application still reads.

      begin
        budget = DISCARD_LIMIT
        deadline = PassengerTrio.now + DISCARD_TIMEOUT
        until @ended || @aborted || @malformed
          timeout = [deadline - PassengerTrio.now, 0].max
          return false if budget <= 0 || IO.select([@conn], nil, nil, timeout).nil?

          budget -= discard_some
        end
      ensure
        @reading.unlock
      end
      !(@aborted || @malformed)
    end

    # Drop what the application has not read, however much that is. False: the client is gone.
    def discard_all
      @reading.synchronize { discard_some until @ended || @aborted || @malformed }
      !(@aborted || @malformed)
    end

    private

    def receive_without_blocking
      receive while !(@ended || @aborted || @malformed) && @buffer.bytesize < MAX_FRAME && PassengerTrio.readable?(@conn)
      return unless @ended && !@aborted && !@malformed && PassengerTrio.readable?(@conn)

      # Behind a whole request only an abort may come.
      @aborted = true
      data = @conn.read_nonblock(5, exception: false)
      @malformed = true unless data.nil? || data == ABORT_FRAME
    rescue SystemCallError, IOError
      @aborted = true
    end

    # The number of bytes that were dropped.
    def discard_some
      @buffer = "".b
      receive
      @buffer.bytesize
    end

    def take(length)
      return @buffer.tap { @buffer = "".b } if length >= @buffer.bytesize

      data = @buffer.byteslice(0, length)
      @buffer = @buffer.byteslice(length, @buffer.bytesize)
      data
    end

    # Append the next piece of the body to the buffer. False: the body has ended.
    def receive_more
      before = @buffer.bytesize
      while @buffer.bytesize == before
        raise ClientGone, "the client went away in the middle of its request" if @aborted || @malformed
        return false if @ended

        receive
      end
      true
    end

    def receive
      feed(PassengerTrio.read_some(@conn))
    rescue SystemCallError, IOError
      @aborted = true
    end

    # Append the payloads in +data+ to the buffer.
    def feed(data)
      data = @partial_header + data unless @partial_header.empty?
      @partial_header = "".b
      at = [@frame_left, data.bytesize].min
      @buffer << data.byteslice(0, at) if at.positive?
      @frame_left -= at
      while at < data.bytesize
        type, length = data.unpack("@#{at}CN")
        return @malformed = true unless FRAME_TYPES.include?(type)
        return @partial_header = data.byteslice(at, 5) if length.nil?

        at += 5
        rest = data.bytesize - at
        return end_with(type, length, data.byteslice(at, rest)) unless type == DATA && length.between?(1, MAX_FRAME)

        piece = data.byteslice(at, length)
        @buffer << piece
        @frame_left = length - piece.bytesize
        at += piece.bytesize
      end
    end

    # :param behind: the bytes behind the frame that ends the body.
    def end_with(type, length, behind)
      @malformed = true unless length.zero? && type != DATA
      @ended = type == END_
      # Before the response has ended only an abort can follow: there is no pipelining.
      @aborted = type == ABORT || (!behind.empty? && ABORT_FRAME.start_with?(behind))
      return if behind.empty? || (type == END_ && @aborted)

      @next_head = behind
      @malformed = true unless type == END_ && @response_ended
    end
  end

  # The body of a request that has none, or whose body is there as a whole: then +rack.input+ is a StringIO.
  class EmptyBody
    def ended
      true
    end

    def aborted
      false
    end

    def malformed
      false
    end

    def check_client; end

    def response_ended!; end

    def next_head; end

    def discard_rest
      true
    end

    def discard_all
      true
    end

    def read_available(*)
      nil
    end
  end
end
