# frozen_string_literal: true

# Numbers, exceptions, and what every part uses: the clock, reading, writing to standard error.

module PassengerTrio
  CONTRACT = 1
  MAX_LINE = 65_536
  MAX_HEAD = 128 * 1024
  MAX_FRAME = 16 * 1024 * 1024
  LAST_SECOND = 0.7 # from the supervisor's end to ours; the contract allows 1
  MOST_RESERVED = 15.0 # seconds, at the most, that a stop keeps for what comes behind the sessions in hand
  OWN_FILES = "#{File.dirname(__dir__)}/"

  # Raised in the main thread, wherever it is, when the process is to end now.
  class Leave < Exception; end # rubocop:disable Lint/InheritException -- `rescue => error` must not stop it

  # The control connection ended, or what came over it makes no sense.
  class Hangup < StandardError; end

  # Nobody waits for this response any more.
  class ClientGone < EOFError; end

  # The application cannot be run, for a reason that this program knows better than a backtrace.
  class Unfit < StandardError
    attr_reader :category, :problem, :solution

    def initialize(category, summary, problem, solution)
      super(summary)
      @category, @problem, @solution = category, problem, solution
    end
  end

  class << self
    def now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end

    # Whether something (or the end) can be read now.
    def readable?(io)
      !IO.select([io], nil, nil, 0).nil?
    end

    if RUBY_ENGINE == "jruby"
      # A channel that was waited for with IO.select does not block any more, and JRuby's readpartial takes "nothing yet" for the end of the file.
      def read_some(io, buffer = "".b)
        loop do
          IO.select([io])
          found = io.read_nonblock(BLOCK, exception: false)
          raise EOFError if found.nil?
          return buffer.replace(found) if found.is_a?(String)
        end
      end
    else
      # What has come, waiting only if there is nothing.
      #
      # :raises EOFError:
      def read_some(io, buffer = nil)
        buffer ? io.readpartial(BLOCK, buffer) : io.readpartial(BLOCK)
      end
    end

    # A line of the application's output.
    def say(text)
      $stderr.write(text)
      $stderr.flush
    rescue StandardError
      nil # Nobody reads it any more, or the application has put something else there.
    end
  end

  def self.utf8(text)
    text = text.encoding == Encoding::BINARY ? text.dup.force_encoding(Encoding::UTF_8) : text.encode(Encoding::UTF_8, invalid: :replace, undef: :replace)
    text.scrub("?")
  end
end
