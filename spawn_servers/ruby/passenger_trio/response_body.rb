# frozen_string_literal: true

# The body of a response.

module PassengerTrio
  # A Rack 2 application may send a body that it has chunked itself (Rack::Chunked). Framing is the server's: this takes it off.
  class Unchunked
    def initialize
      @data = "".b
      @left = nil
    end

    # The payload in the next piece.
    def take(piece)
      @data << piece
      payload = "".b
      loop do
        if @left.nil?
          line = @data.slice!(/\A\h+[^\n]*\n/n) || break
          @left = line.hex
        elsif @left.zero?
          return payload # trailers; the last piece
        elsif @data.bytesize >= @left + 2
          payload << @data.slice!(0, @left)
          @data.slice!(0, 2)
          @left = nil
        else
          break
        end
      end
      payload
    end
  end

  class Session
    private

    # Returns what is still to be closed.
    def deliver(body)
      raise ClientGone, "the client is gone" if @input.broken

      if @hijack || (body.respond_to?(:call) && !body.respond_to?(:each))
        stream(@hijack || body)
      elsif body.instance_of?(Array)
        send_whole(body)
      elsif @no_body
        send_end
      elsif body.respond_to?(:to_path) && (path = body.to_path) && (file = open_file(path))
        file.closed? ? nil : send_file(file)
      elsif @worker.rack3 && body.respond_to?(:to_ary) && (chunks = body.to_ary)
        send_whole(chunks)
        return nil # its to_ary has closed it
      else
        raise TypeError, "the body of the response is #{body.class}, which has no `each`" unless body.respond_to?(:each)

        body.each do |chunk|
          raise TypeError, "the body yielded #{chunk.class} instead of String" unless chunk.is_a?(String)

          send_chunk(chunk) unless chunk.empty?
          break if @gone || (@done && @sent > @length)
        end
        send_end unless @done || @gone
      end
      body
    end

    # Send a body of which there is no more.
    def send_whole(chunks)
      body = chunks.size == 1 ? chunks[0] : chunks.inject("".b) { |all, chunk| all << chunk.b }
      raise TypeError, "the body has #{body.class} instead of String" unless body.is_a?(String)
      return send_chunk(body) || @done || send_end if @unchunked

      size = body.bytesize
      # Nothing is known of the body of a HEAD request's GET from an empty one.
      if @length.nil? && (!@no_body || (@is_head && size.positive?))
        @head << "Content-Length\0#{size}\0"
        @length = size
      end
      if size == @length && size.positive? && size <= BLOCK && !@no_body
        @begun = true
        @sent = size
        push([RESPONSE, @head.bytesize, @head, DATA, size, body].pack("CNa*CNa*") << end_frame)
        @done = true
      else
        send_chunk(body) if size.positive?
        send_end unless @done || @gone
      end
    end

    # Send a part of the body: the head in front of the first, the end behind one that makes the body complete.
    def send_chunk(chunk)
      chunk = @unchunked.take(ascii(chunk)) if @unchunked
      size = chunk.bytesize
      return if size.zero?

      front = "".b
      if !@begun
        front = [RESPONSE, @head.bytesize].pack("CN") << @head
      elsif @done
        return tell_excess(size) unless @no_body
        return
      elsif gave_up?
        return @gone = true
      end
      @begun = true
      return send_end(front) if @no_body

      excess = @length ? [@sent + size - @length, 0].max : 0
      if excess.positive?
        size -= excess
        chunk = chunk.byteslice(0, size)
      end
      @sent += size
      complete = @sent == @length
      if size <= BLOCK
        front << [DATA, size].pack("CN") << ascii(chunk) if size.positive?
        front << end_frame if complete
        push(front)
      else
        push_large(front, chunk, complete ? end_frame : "")
      end
      @done = complete
      tell_excess(excess) if excess.positive?
    end

    def push_large(front, chunk, ending)
      at = 0
      while at < chunk.bytesize
        piece = chunk.bytesize <= MAX_FRAME ? chunk : chunk.byteslice(at, MAX_FRAME)
        at += piece.bytesize
        push(front << [DATA, piece.bytesize].pack("CN"), piece, at < chunk.bytesize ? "" : ending)
        front = "".b
      end
    end

    # There is no more.
    def send_end(front = "".b)
      unless @begun
        @head << "Content-Length\0000\0" if @length.nil? && !@no_body && !@front_only
        front << [RESPONSE, @head.bytesize].pack("CN") << @head
        @begun = true
      end
      if !@no_body && @length && @sent < @length
        # No end: the client must not take this for the whole of it.
        push(front)
        PassengerTrio.say("passenger_trio: the response ended after #{@sent} of the #{@length} bytes of its Content-Length\n")
      else
        push(front << end_frame)
        @done = true
      end
    end

    def tell_excess(size)
      PassengerTrio.say("passenger_trio: #{size} bytes beyond the Content-Length of the response were dropped\n")
      @sent += size
    end
  end
end
