# frozen_string_literal: true

# What every other file uses: the contract's limits, our exceptions, the clock, reading from a stream, the log.
#
# Knows no message, no frame and no application.
#
# Law: nothing here raises but what its comment names.

module PassengerTrio
  CONTRACT_VERSION = 1
  MAX_LINE = 65_536 # bytes of a control message, its newline included
  MAX_HEAD = 128 * 1024 # bytes of a request or response head
  MAX_FRAME = 16 * 1024 * 1024 # bytes of a frame's payload
  READ_SIZE = 65_536 # bytes asked from the kernel at a time
  LOADER_FILES = "#{File.dirname(__dir__)}/" # frames of these files are left out of backtraces

  # Raised in a thread to make it leave what it does: the process is stopping. No `rescue => error` stops it.
  class ProcessStopping < Exception; end # rubocop:disable Lint/InheritException

  # The control connection ended, or a message on it was malformed.
  class ControlConnectionLost < StandardError; end

  # The client is gone, so nobody reads this response.
  class ClientGone < EOFError; end

  # The application cannot be started, and we know better than a backtrace why.
  class StartupError < StandardError
    attr_reader :category, :problem, :solution

    def initialize(category, summary, problem, solution)
      super(summary)
      @category, @problem, @solution = category, problem, solution
    end
  end

  class << self
    # Seconds on the monotonic clock.
    def now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end

    # Whether a read would not block: data, or the end of file.
    def readable?(io)
      !IO.select([io], nil, nil, 0).nil?
    end

    if RUBY_ENGINE == "jruby"
      # JRuby makes a socket non-blocking when IO.select waits for it. From then on its readpartial takes "no data yet" for the end of file.
      def read_some(io, buffer = "".b)
        loop do
          IO.select([io])
          data = io.read_nonblock(READ_SIZE, exception: false)
          raise EOFError if data.nil?
          return buffer.replace(data) if data.is_a?(String)
        end
      end
    else
      # The bytes that have arrived. Blocks only while there are none.
      #
      # :raises EOFError: the peer closed its side.
      def read_some(io, buffer = nil)
        buffer ? io.readpartial(READ_SIZE, buffer) : io.readpartial(READ_SIZE)
      end
    end

    # Write to standard error, which the supervisor captures.
    def log(text)
      $stderr.write(text)
      $stderr.flush
    rescue StandardError
      nil # The reader is gone, or the application replaced $stderr.
    end

    # +text+ as valid UTF-8. Binary strings are taken for UTF-8.
    def utf8(text)
      text = if text.encoding == Encoding::BINARY
               text.dup.force_encoding(Encoding::UTF_8)
             else
               text.encode(Encoding::UTF_8, invalid: :replace, undef: :replace)
             end
      text.scrub("?")
    end
  end
end
