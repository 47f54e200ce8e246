# frozen_string_literal: true

# The request body, as it comes.

module PassengerTrio
  # +rack.input+: the request body, read from its frames as the application asks for it.
  #
  # It ends where the body ends (+E+), whatever the request said of its length. When the client is gone before that, reading raises ClientGone.
  # One thread reads at a time: a body that streams may read in one and write in another, and who writes looks whether the client is there.
  class Input
    attr_reader :ended, :aborted, :broken, :behind
    # +behind+: what has come of the next head, or nil. That may follow when the end of the response is on its way, also while the body is still being read.

    # :param arrived: what came behind the head.
    def initialize(conn, arrived)
      @conn = conn
      @have = "".b
      @left = 0 # bytes of the frame under way that have not come
      @partial = "".b # the first bytes of the next frame's five
      @ended = @aborted = @broken = @answered = false
      @behind = nil
      @reading = Mutex.new
      take_in(arrived)
    end

    def read(length = nil, out = nil)
      raise ArgumentError, "negative length #{length}" if length && length.negative?

      data = @reading.synchronize do
        if length.nil?
          nil while more
          take(@have.bytesize)
        else
          nil while @have.bytesize < length && more
          @have.empty? && length.positive? ? nil : take(length)
        end
      end
      out ? out.replace(data || "") && data && out : data
    end

    def gets
      @reading.synchronize do
        from = 0
        until (at = @have.index("\n", from))
          from = @have.bytesize
          break unless more
        end
        @have.empty? ? nil : take(at ? at + 1 : @have.bytesize)
      end
    end

    def each
      while (line = gets)
        yield line
      end
    end

    # What is there, waiting only if there is nothing; nil at the end.
    def some(most = BLOCK)
      @reading.synchronize do
        more if @have.empty?
        @have.empty? ? nil : take(most)
      end
    end

    # For ResponseStream, as a StringIO has it.
    def readpartial(most, out = nil)
      data = some(most) || raise(EOFError, "end of the request body")
      out ? out.replace(data) : data
    end

    def close; end

    def external_encoding
      Encoding::BINARY
    end

    # Take in what has come, without waiting. (Also an end of file behind a body that nobody reads must be seen; an endless body is not taken for that.)
    def look
      return unless @reading.try_lock # who reads sees it as well

      begin
        look_around
      ensure
        @reading.unlock
      end
    end

    def look_around
      while !(@ended || @aborted || @broken) && @have.bytesize < MAX_FRAME && PassengerTrio.readable?(@conn)
        receive
      end
      return unless @ended && !@aborted && !@broken && PassengerTrio.readable?(@conn)

      # Behind a whole request only an abort may come.
      @aborted = true
      data = @conn.read_nonblock(5, exception: false)
      @broken = true unless data.nil? || data == THE_ABORT
    rescue SystemCallError, IOError
      @aborted = true
    end
    private :look_around

    # The end of the response is on its way.
    def answered!
      @answered = true
    end

    # Drop what the application has not read. True if the stream is at a boundary then.
    #
    # What has come is read (up to a bound), however late we are: the supervisor has been told that the stream lives on, and may have used it again.
    def finish
      return false unless @reading.try_lock # a thread of the application's reads still

      begin
        budget = DRAIN_BYTES
        till = PassengerTrio.now + DRAIN_TIME
        until @ended || @aborted || @broken
          wait = [till - PassengerTrio.now, 0].max
          return false if budget <= 0 || IO.select([@conn], nil, nil, wait).nil?

          budget -= drop
        end
      ensure
        @reading.unlock
      end
      !(@aborted || @broken)
    end

    # Drop what has not been read, however much it is. False if the client went away meanwhile.
    def skip
      @reading.synchronize { drop until @ended || @aborted || @broken }
      !(@aborted || @broken)
    end

    private

    # The number of bytes that came.
    def drop
      @have = "".b
      receive
      @have.bytesize
    end

    def take(length)
      return @have.tap { @have = "".b } if length >= @have.bytesize

      data = @have.byteslice(0, length)
      @have = @have.byteslice(length, @have.bytesize)
      data
    end

    # Append the next piece of the body. False: there is none.
    def more
      before = @have.bytesize
      while @have.bytesize == before
        raise ClientGone, "the client went away in the middle of its request" if @aborted || @broken
        return false if @ended

        receive
      end
      true
    end

    def receive
      take_in(PassengerTrio.read_some(@conn))
    rescue SystemCallError, IOError
      @aborted = true
    end

    # Append the payloads in +data+ to what we have.
    def take_in(data)
      data = @partial + data unless @partial.empty?
      @partial = "".b
      at = [@left, data.bytesize].min
      @have << data.byteslice(0, at) if at.positive?
      @left -= at
      while at < data.bytesize
        kind, length = data.unpack("@#{at}CN")
        # Garbage is not waited for.
        return @broken = true unless [DATA, END_, ABORT].include?(kind)
        return @partial = data.byteslice(at, 5) if length.nil?

        at += 5
        return ending(kind, length, data.byteslice(at, data.bytesize)) unless kind == DATA && length.between?(1, MAX_FRAME)

        piece = data.byteslice(at, length)
        @have << piece
        @left = length - piece.bytesize
        at += piece.bytesize
      end
    end

    def ending(kind, length, behind)
      @broken = true unless length.zero? && kind != DATA
      @ended = kind == END_
      # The client may be gone already. Nothing else can follow before the response has ended: there is no pipelining.
      @aborted = kind == ABORT || (!behind.empty? && THE_ABORT.start_with?(behind))
      return if behind.empty? || (kind == END_ && @aborted)

      @behind = behind
      @broken = true unless kind == END_ && @answered
    end
  end

  # The body of a request that has none, and of one that is there as a whole (then +rack.input+ is a StringIO).
  class Whole
    def ended
      true
    end

    def aborted
      false
    end

    def broken
      false
    end

    def look; end

    def answered!; end

    def behind; end

    def finish
      true
    end

    def skip
      true
    end

    def some(*)
      nil
    end
  end
end
