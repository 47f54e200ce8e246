# frozen_string_literal: true

# A body that is a file (+to_path+): the kernel copies it to the stream, and its bytes never enter Ruby.
#
# Knows regular files and what their sizes are worth. Anything else is left to the body's `each`.

module PassengerTrio
  class Session
    FILE_FRAME_SIZE = 1024 * 1024 # bytes; the client is checked before each frame

    private

    # nil: the body is to be sent by its `each`.
    def open_file(path)
      return unless File.file?(path) # Opening a pipe would wait for its writer.

      file = File.open(path, "rb")
      return file if size_is_true?(file)

      file.close
      nil
    rescue SystemCallError
      nil # `each` raises it again.
    end

    # Files that the kernel makes up when they are read (/proc, /sys) have no blocks, and a size that says nothing.
    def size_is_true?(file)
      stat = file.stat
      return true if stat.size > READ_SIZE || stat.blocks.to_i.positive?

      read = file.read(stat.size + 1).to_s.bytesize
      file.rewind
      read == stat.size
    end

    def send_file(file)
      size = file.size
      unless @length
        @head << "Content-Length\0#{size}\0"
        @length = size
      end
      # A file that is longer than the Content-Length is no mistake: ranges are sent like this.
      size = [size, @length].min
      return send_whole([file.read(size) || ""]) if size <= READ_SIZE

      head = [RESPONSE, @head.bytesize].pack("CN") << @head
      at = 0
      while at < size
        return @client_gone = true if @begun && client_gone?

        count = [size - at, FILE_FRAME_SIZE].min
        @begun = true
        write(head << [DATA, count].pack("CN"))
        raise "the file became shorter while it was sent" if copy(file, count, at) < count

        at += count
        @sent += count
        head = "".b
      end
      send_end
    ensure
      file.close
    end

    # The number of bytes that were copied.
    def copy(file, count, at)
      return IO.copy_stream(file, @conn, count, at) unless RUBY_ENGINE == "jruby"

      # JRuby's copy_stream never returns for a non-blocking socket.
      file.seek(at)
      @conn.write(file.read(count).to_s)
    rescue SystemCallError, IOError
      @client_gone = true
      raise ClientGone, "the client is gone"
    end
  end
end
