# frozen_string_literal: true

# The request body for Rack 2.

module PassengerTrio
  # +rack.input+ for Rack 2, which can be read again: what was read is kept, in memory or in a file.
  class RewindableInput
    def initialize(input)
      @input = input
      @kept = StringIO.new("".b)
      @size = 0
      @at = 0
    end

    def read(length = nil, out = nil)
      fill(length && @at + length)
      @kept.pos = @at
      data = @kept.read(length)
      @at = @kept.pos
      out ? out.replace(data || "") && data && out : data
    end

    def gets
      fill
      @kept.pos = @at
      line = @kept.gets("\n")
      @at = @kept.pos
      line
    end

    def each
      while (line = gets)
        yield line
      end
    end

    def rewind
      @at = 0
    end

    def readpartial(most, out = nil)
      fill(@at + 1)
      raise EOFError, "end of the request body" if @at == @size

      read([most, @size - @at].min, out)
    end

    def size
      fill
      @size
    end

    def close; end

    def external_encoding
      Encoding::BINARY
    end

    # The session is over.
    def discard
      @kept.close! if @kept.respond_to?(:close!)
    end

    private

    def fill(upto = nil)
      while (upto.nil? || @size < upto) && (piece = @input.some)
        move_to_file if @size <= MEMORY_BODY && @size + piece.bytesize > MEMORY_BODY
        @kept.pos = @size
        @kept.write(piece)
        @size += piece.bytesize
      end
    end

    def move_to_file
      require "tempfile"
      file = Tempfile.new("passenger_trio_body")
      file.binmode
      file.write(@kept.string)
      @kept = file
    end
  end
end
