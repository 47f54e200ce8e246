# frozen_string_literal: true

# The body of a response, in frames.
#
# Knows Rack's kinds of bodies, and what the response head says of the body's length.
#
# Laws:
#
# * A small response is one write: head, data and end.
# * Each chunk is written before the next is asked for.
# * END_ goes out with the chunk that completes the Content-Length. More than that is dropped, and logged; less is an
#   incomplete response.
# * HEAD, 204 and 304 have no DATA.

module PassengerTrio
  # A Rack 2 application may send a body that it has chunked itself (Rack::Chunked). Framing is the server's, so this removes it.
  class Dechunker
    def initialize
      @data = "".b
      @chunk_left = nil # bytes of the current chunk; 0: the last chunk
    end

    # The payload that +piece+ completes.
    def feed(piece)
      @data << piece
      payload = "".b
      loop do
        if @chunk_left.nil?
          line = @data.slice!(/\A\h+[^\n]*\n/n) || break
          @chunk_left = line.hex
        elsif @chunk_left.zero?
          return payload # Trailers may follow, and are dropped.
        elsif @data.bytesize >= @chunk_left + 2
          payload << @data.slice!(0, @chunk_left)
          @data.slice!(0, 2)
          @chunk_left = nil
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
    def send_body(body)
      raise ClientGone, "the client is gone" if @body.malformed

      if @hijack || (body.respond_to?(:call) && !body.respond_to?(:each))
        send_streaming(@hijack || body)
      elsif body.instance_of?(Array)
        send_whole(body)
      elsif @no_body
        send_end
      elsif body.respond_to?(:to_path) && (path = body.to_path) && (file = open_file(path))
        file.closed? ? nil : send_file(file)
      elsif @worker.rack3 && body.respond_to?(:to_ary) && (chunks = body.to_ary)
        send_whole(chunks)
        return nil # to_ary has closed the body.
      else
        send_each(body)
      end
      body
    end

    def send_each(body)
      raise TypeError, "the body of the response is #{body.class}, which has no `each`" unless body.respond_to?(:each)

      body.each do |chunk|
        raise TypeError, "the body yielded #{chunk.class} instead of String" unless chunk.is_a?(String)

        send_chunk(chunk) unless chunk.empty?
        break if @client_gone || (@done && @sent > @length)
      end
      send_end unless @done || @client_gone
    end

    # Send a body that is known as a whole.
    def send_whole(chunks)
      body = chunks.size == 1 ? chunks[0] : chunks.inject("".b) { |all, chunk| all << chunk.b }
      raise TypeError, "the body has #{body.class} instead of String" unless body.is_a?(String)
      return send_chunk(body) || @done || send_end if @dechunker

      size = body.bytesize
      # An empty body in answer to HEAD says nothing of the length that GET would have.
      if @length.nil? && (!@no_body || (@is_head && size.positive?))
        @head << "Content-Length\0#{size}\0"
        @length = size
      end
      if size == @length && size.positive? && size <= READ_SIZE && !@no_body
        @begun = true
        @sent = size
        write([RESPONSE, @head.bytesize, @head, DATA, size, body].pack("CNa*CNa*") << end_frame)
        @done = true
      else
        send_chunk(body) if size.positive?
        send_end unless @done || @client_gone
      end
    end

    # Send a part of the body, with the head before the first part and the end behind the last.
    def send_chunk(chunk)
      chunk = @dechunker.feed(appendable(chunk)) if @dechunker
      size = chunk.bytesize
      return if size.zero?

      head = "".b
      if !@begun
        head = [RESPONSE, @head.bytesize].pack("CN") << @head
      elsif @done
        return log_excess(size) unless @no_body

        return
      elsif client_gone?
        return @client_gone = true
      end
      @begun = true
      return send_end(head) if @no_body

      excess = @length ? [@sent + size - @length, 0].max : 0
      if excess.positive?
        size -= excess
        chunk = chunk.byteslice(0, size)
      end
      @sent += size
      complete = @sent == @length
      if size <= READ_SIZE
        head << [DATA, size].pack("CN") << appendable(chunk) if size.positive?
        head << end_frame if complete
        write(head)
      else
        write_large(head, chunk, complete ? end_frame : "")
      end
      @done = complete
      log_excess(excess) if excess.positive?
    end

    # Write a chunk without copying it, in frames that are not too long.
    def write_large(head, chunk, ending)
      at = 0
      while at < chunk.bytesize
        piece = chunk.bytesize <= MAX_FRAME ? chunk : chunk.byteslice(at, MAX_FRAME)
        at += piece.bytesize
        write(head << [DATA, piece.bytesize].pack("CN"), piece, at < chunk.bytesize ? "" : ending)
        head = "".b
      end
    end

    # The body has ended.
    def send_end(head = "".b)
      unless @begun
        @head << "Content-Length\0000\0" if @length.nil? && !@no_body && !@switching_protocols
        head << [RESPONSE, @head.bytesize].pack("CN") << @head
        @begun = true
      end
      if !@no_body && @length && @sent < @length
        write(head) # No END_: the response is incomplete.
        PassengerTrio.log("passenger_trio: the response ended after #{@sent} of the #{@length} bytes of its Content-Length\n")
      else
        write(head << end_frame)
        @done = true
      end
    end

    def log_excess(size)
      PassengerTrio.log("passenger_trio: #{size} bytes beyond the Content-Length of the response were dropped\n")
      @sent += size
    end
  end
end
