# frozen_string_literal: true

# A body that is a file.

module PassengerTrio
  class Session
    private

    def open_file(path)
      return unless File.file?(path) # to open a pipe is to wait for its writer

      file = File.open(path, "rb")
      return file if sendable?(file)

      file.close
      nil
    rescue SystemCallError
      nil # its `each` will tell
    end

    def sendable?(file)
      stat = file.stat
      return true if stat.size > BLOCK || stat.blocks.to_i.positive?

      # What the kernel makes up when it is read (/proc, /sys) has no blocks, and a size that says nothing.
      read = file.read(stat.size + 1).to_s.bytesize
      file.rewind
      read == stat.size
    end

    # The kernel sends it: its bytes never enter Ruby.
    def send_file(file)
      size = file.size
      unless @length
        @head << "Content-Length\0#{size}\0"
        @length = size
      end
      # A file that is longer than the Content-Length is no mistake: ranges are sent like this.
      size = [size, @length].min
      return send_whole([file.read(size) || ""]) if size <= BLOCK

      front = [RESPONSE, @head.bytesize].pack("CN") << @head
      at = 0
      while at < size
        return @gone = true if @begun && gave_up?

        count = [size - at, FILE_FRAME].min
        @begun = true
        push(front << [DATA, count].pack("CN"))
        raise "the file became shorter while it was sent" if copy(file, count, at) < count

        at += count
        @sent += count
        front = "".b
      end
      send_end
    ensure
      file.close
    end

    def copy(file, count, at)
      return IO.copy_stream(file, @conn, count, at) unless RUBY_ENGINE == "jruby"

      # JRuby's copy_stream waits for ever for a socket that does not block.
      file.seek(at)
      @conn.write(file.read(count).to_s)
    rescue SystemCallError, IOError
      @gone = true
      raise ClientGone, "the client is gone"
    end
  end
end
