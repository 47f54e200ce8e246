# frozen_string_literal: true

# +rack.input+ for Rack 2, which demands that a body can be read again.
#
# Knows a RequestBody, and keeps what was read of it: in memory, or in a file if that is more than MEMORY_LIMIT.

module PassengerTrio
  class RewindableBody
    MEMORY_LIMIT = 128 * 1024 # bytes

    def initialize(body)
      @body = body
      @kept = StringIO.new("".b)
      @size = 0 # bytes kept
      @position = 0
    end

    def read(length = nil, out = nil)
      keep(length && @position + length)
      @kept.pos = @position
      data = @kept.read(length)
      @position = @kept.pos
      out ? out.replace(data || "") && data && out : data
    end

    def gets
      keep
      @kept.pos = @position
      line = @kept.gets("\n")
      @position = @kept.pos
      line
    end

    def each
      while (line = gets)
        yield line
      end
    end

    def rewind
      @position = 0
    end

    def readpartial(max, out = nil)
      keep(@position + 1)
      raise EOFError, "end of the request body" if @position == @size

      read([max, @size - @position].min, out)
    end

    def size
      keep
      @size
    end

    def close; end

    def external_encoding
      Encoding::BINARY
    end

    # The session is over.
    def delete
      @kept.close! if @kept.respond_to?(:close!)
    end

    private

    # Read the body up to +size+ bytes, or all of it.
    def keep(size = nil)
      while (size.nil? || @size < size) && (piece = @body.read_available)
        move_to_file if @size <= MEMORY_LIMIT && @size + piece.bytesize > MEMORY_LIMIT
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
