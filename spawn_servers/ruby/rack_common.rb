# frozen_string_literal: true

# What rack_loader.rb and rack_preloader.rb share: everything but the order of things and the forking.
#
# They run a Rack application for passenger_trio, in the application's own interpreter, and keep spawn_servers/CONTRACT.md,
# which is the text to read first. They use what Ruby 2.6 has, for JRuby 9.3 is one; CRuby is tried from 3.1 on. They need the standard library alone.
#
# The file is read from top to bottom:
#
#     events, Json, Control        what applications may call; lines of JSON; the control connection
#     Lifeline                     the thread that watches it, and the process's signals
#     Runtime                      from a config.ru to an application; from an exception to advice
#     Input, RewindableInput       the request body
#     Session, ResponseStream      one request and its response
#     Worker                       the socket, the streams, the threads
#     Life                         what the last steps of every worker are
#
# Laws:
#
# * Nothing that is a gem is loaded before the application's Bundler was asked, not even json, stringio or socket.rb: a default gem that is
#   loaded in the version of this Ruby is one that a Gemfile.lock cannot choose any more.
# * A session costs one wait, one read and one write when it is small.
# * Whatever arrives that is not in the contract closes its stream. It is never answered, and the worker lives.
# * A response body is closed exactly once, on every path, unless its own to_ary has done so.
# * Nothing that the application raises ends the worker, +exit+ in a request included.
# * The supervisor's end is seen on the control connection, and the process is gone within a second of it: the main thread is interrupted
#   until it runs the exit hooks, and a thread ends what is left. (That thread needs the interpreter's lock, which CRuby takes from
#   whoever computes after 100 ms. A C extension that never lets go of it is more than Ruby can help.)

RUBY_ENGINE == "jruby" ? require("socket") : require("socket.so")

module PassengerTrio
  CONTRACT = 1
  MAX_LINE = 65_536
  MAX_HEAD = 128 * 1024
  MAX_FRAME = 16 * 1024 * 1024
  LAST_SECOND = 0.7 # from the supervisor's end to ours; the contract allows 1
  MOST_RESERVED = 15.0 # seconds, at the most, that a stop keeps for what comes behind the sessions in hand
  OWN_FILES = "#{__dir__}/"

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

  @events = Hash.new { |events, name| events[name] = [] }
  @belongings = {}
  @handlers = {}

  class << self
    # For applications: +:starting_worker_process+ (called with whether the process was forked), +:stopping_worker_process+,
    # +:starting_request_handler_thread+.
    def on_event(name, &block)
      @events[name.to_sym] << block
    end

    def call_event(name, *arguments)
      @events[name].each { |block| block.call(*arguments) }
    end

    # What belongs to us in this process, and not to one that the application (or our preloader) forks from it: a child that
    # kept our streams would hold them open when we close them to say "this response is incomplete".
    def own(*ios)
      ios.each { |io| @belongings[io] = true }
    end

    def disclaim(io)
      @belongings.delete(io)
    end

    def let_go(io)
      @belongings.delete(io)
      io.close unless io.closed?
    rescue SystemCallError, IOError
      nil
    end

    # Also ours alone: a child that kept our signal handlers could not be ended with SIGTERM.
    def take_signal(name, &ours)
      @handlers[name] = [ours, trap(name, &ours)]
    end

    # Runs in every process forked from this one, before anything else.
    def disown
      @belongings.keys.each { |io| let_go(io) }
      give_back_signals
      Life.disown
    end

    def give_back_signals
      @handlers.each do |name, (ours, theirs)|
        found = trap(name, theirs || "DEFAULT")
        trap(name, found) unless found.equal?(ours)
      end
      @handlers.clear
    end

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

  # Ruby 3.1 has one place through which every fork goes; before, there are three names for it.
  module Forks
    if Process.respond_to?(:_fork)
      def _fork
        pid = super
        PassengerTrio.disown if pid.zero?
        pid
      end
      Process.singleton_class.prepend(self)
    elsif Process.respond_to?(:fork)
      def fork
        if block_given?
          super() do
            PassengerTrio.disown
            yield
          end
        else
          pid = super()
          PassengerTrio.disown if pid.nil?
          pid
        end
      end
      [Process.singleton_class, Kernel.singleton_class].each { |place| place.prepend(self) }
      Object.prepend(dup.tap { |copy| copy.__send__(:private, :fork) })
    end
  end

  # The JSON of the control connection. Ruby's own is a gem (see the laws).
  module Json
    TOKEN = /\G\s*("[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null|[\[\]{},:])\s*/.freeze
    SHORT = { "n" => "\n", "r" => "\r", "t" => "\t", "b" => "\b", "f" => "\f" }.freeze
    WORDS = { "true" => true, "false" => false, "null" => nil }.freeze

    class << self
      # :raises ArgumentError:
      def read(line)
        tokens = line.scan(TOKEN).map(&:first)
        rest = Regexp.last_match
        value = take(tokens)
        raise ArgumentError, "not JSON" unless tokens.empty? && rest && rest.post_match.empty?

        value
      end

      def write(value)
        case value
        when Hash then "{#{value.map { |name, member| "#{write(name.to_s)}:#{write(member)}" }.join(',')}}"
        when Array then "[#{value.map { |member| write(member) }.join(',')}]"
        when nil then "null"
        when Integer, Float, true, false then value.to_s
        else "\"#{PassengerTrio.utf8(value.to_s).gsub(/["\\\u0000-\u001f]/) { |char| format('\u%04x', char.ord) }}\""
        end
      end

      private

      def take(tokens)
        token = tokens.shift
        case token
        when "{" then members(tokens, "}") { [take(tokens), expect(tokens, ":") && take(tokens)] }.to_h
        when "[" then members(tokens, "]") { take(tokens) }
        when /\A"/ then text(token[1..-2])
        when /\A-?\d+\z/ then token.to_i
        when /\A-?\d/ then token.to_f
        else WORDS.fetch(token) { raise ArgumentError, "not JSON" }
        end
      end

      def members(tokens, closing)
        found = []
        return found if tokens.first == closing && tokens.shift

        loop do
          found << yield
          return found if tokens.first == closing && tokens.shift

          expect(tokens, ",")
        end
      end

      def expect(tokens, wanted)
        tokens.shift == wanted || raise(ArgumentError, "not JSON")
      end

      def text(raw)
        raw.gsub(/\\u(d[89ab]\h\h)\\u(d[c-f]\h\h)|\\u(\h{4})|\\(.)/i) do
          high, low, plain, short = $1, $2, $3, $4
          next [0x10000 + ((high.hex & 0x3ff) << 10) + (low.hex & 0x3ff)].pack("U") if high
          next [plain.hex].pack("U").scrub if plain

          SHORT.fetch(short, short)
        end
      end
    end
  end

  def self.utf8(text)
    text = text.encoding == Encoding::BINARY ? text.dup.force_encoding(Encoding::UTF_8) : text.encode(Encoding::UTF_8, invalid: :replace, undef: :replace)
    text.scrub("?")
  end

  # Messages to and from the supervisor: one JSON object a line.
  class Control
    attr_reader :io, :descriptors
    # Messages that came while nobody was there to act on them.
    attr_reader :pending

    # :raises SystemCallError: nobody listens there.
    def initialize(path, role)
      @io = UNIXSocket.new(path)
      @role = role
      @partial = "".b
      @pending = []
      @descriptors = [] # each "fork" message brought one, in order
      PassengerTrio.own(@io)
    end

    def tell(type, **members)
      @io.write(one_line({ type: type }.merge(members)))
    rescue SystemCallError, IOError
      nil # The supervisor is gone. Whoever reads from this connection learns it there, and acts.
    end

    # Wait for messages: one or more, or none when only a part of a line came.
    #
    # :raises Hangup:
    def read
      @partial << receive
      *lines, @partial = @partial.split("\n", -1)
      raise Hangup if @partial.nil? || @partial.bytesize >= MAX_LINE

      lines.map { |line| Json.read(line.force_encoding(Encoding::UTF_8)) }.select { |message| message.fetch("type") }
    rescue SystemCallError, IOError, ArgumentError, KeyError, NoMethodError
      raise Hangup
    end

    # Say hello; return the options.
    #
    # :raises Hangup:
    def greet(token)
      version = RUBY_ENGINE == "ruby" ? RUBY_VERSION : "#{RUBY_VERSION} (#{RUBY_ENGINE} #{RUBY_ENGINE_VERSION})"
      tell("hello", token: token, contract: CONTRACT, role: @role, language: "ruby", version: version, pid: Process.pid)
      loop do
        @pending.concat(read)
        at = @pending.index { |message| message["type"] == "options" }
        return @pending.delete_at(at) if at
      end
    end

    # Report a step of the journey.
    def step(name, begun = PassengerTrio.now)
      tell("step", name: name, state: "in_progress")
      state = "errored"
      result = yield
      state = "performed"
      result
    rescue Leave
      state = nil
      raise
    ensure
      tell("step", name: name, state: state, duration: PassengerTrio.now - begun) if state
    end

    private

    def receive
      return PassengerTrio.read_some(@io) unless @role == "preloader" && RUBY_ENGINE == "ruby"

      # What socket.rb calls recvmsg.
      data, _, _, *controls = @io.__send__(:__recvmsg, MAX_LINE, 0, 256, true)
      controls.each { |control| @descriptors.concat(control.unix_rights || []) }
      raise Hangup if data.nil? || data.empty?

      data
    end

    # What would be too long is cut at the front of its longest text: the end says what happened.
    def one_line(message)
      line = "#{Json.write(message)}\n"
      while line.bytesize > MAX_LINE
        name, text = message.max_by { |_, member| member.is_a?(String) ? member.bytesize : 0 }
        text = PassengerTrio.utf8(text)
        # One character takes up to 6 bytes in JSON, so this may need a few rounds.
        message[name] = "[...]#{text[(5 + [64, [line.bytesize - MAX_LINE, text.length / 2].min].max)..-1]}"
        line = "#{Json.write(message)}\n"
      end
      line
    end
  end

  # Watches the control connection and the signals, in a thread of its own, beside an application that may do anything.
  class Lifeline
    attr_writer :worker # told to stop, once there is one; before that, to stop is to leave
    attr_writer :timeout # seconds that the process has to end when it is told to
    attr_reader :bell

    def initialize(control)
      @control = control
      @bell, @alarm = IO.pipe
      PassengerTrio.own(@bell, @alarm)
      @lock = Mutex.new
      @interruptible = true
      @terms = 0
      @timeout = 0
      @due = nil # once told to stop, what is to be done when: [time, block]
      @ends = nil # when the supervisor is gone, or our time is over: the moment in which we are gone, too
    end

    # Called in the main thread.
    def begin
      PassengerTrio.take_signal("TERM") { ring("T") }
      # Not ignored: that would be inherited by the programs that the application starts.
      PassengerTrio.take_signal("INT") { nil }
      @thread = Thread.new { watch }
      self
    end

    # End the thread: the preloader watches for itself, and has one thread when it forks.
    def release
      @released = true
      ring("0")
      @thread.join
      @released = false
    end

    # Another one takes its place, in this process: a preloader goes on as a worker.
    def give_way
      PassengerTrio.give_back_signals
      [@bell, @alarm].each { |io| PassengerTrio.let_go(io) }
    end

    # Whether the main thread was told to leave what it does.
    attr_reader :interrupted

    # The main thread has done what there was to do, and leaves: nothing interrupts it from here. Called with interrupts masked.
    def end
      @lock.synchronize { @interruptible = false }
      Thread.handle_interrupt(Leave => :immediate) { Thread.pass }
    rescue Leave
      nil
    end

    # The last of all exit hooks. Ruby would wait for threads of the application's that do not want to end.
    def part
      return unless @ends

      others = Thread.list - [Thread.current, @thread]
      others.each(&:kill)
      others.each { |thread| thread.join([@ends - PassengerTrio.now, 0].max) }
      exit!(0) if others.any?(&:alive?)
    end

    # From a signal handler: no locks here.
    def ring(byte)
      @alarm.write_nonblock(byte, exception: false)
    rescue SystemCallError, IOError
      nil
    end

    # The signals that came since the last call.
    def signals
      bytes = @bell.read_nonblock(4096, exception: false)
      bytes.is_a?(String) ? bytes : ""
    end

    private

    def watch
      Thread.current.report_on_exception = false
      @control.pending.each { |message| heed(message) }
      until @released
        ready, = IO.select([@control.io, @bell], nil, nil, patience)
        heed_time
        next unless ready

        signals.each_char { |byte| heed_signal(byte) } if ready.include?(@bell)
        @control.read.each { |message| heed(message) } if ready.include?(@control.io)
      end
    rescue Hangup
      farewell
    rescue Exception => e # rubocop:disable Lint/RescueException
      # A bug of ours. A worker that nobody watches must not live on.
      PassengerTrio.say(Runtime.backtrace_of(e))
      farewell
    end

    def heed(message)
      stop if message["type"] == "shutdown"
    end

    def heed_signal(byte)
      return unless byte == "T"

      @terms += 1
      exit!(143) if @terms > 1
      stop
    end

    def stop
      return interrupt unless @worker

      @due ||= plan(@worker, PassengerTrio.now)
      @worker.stop
    end

    # The shares of a stop, as the contract has them: sessions finish, are cancelled, are given up; then come the exit hooks.
    def plan(worker, now)
      reserved = [@timeout / 2.0, MOST_RESERVED].min
      cancel = now + @timeout - reserved
      [
        [cancel, -> { worker.cancel(Leave) || interrupt }],
        [cancel + reserved / 3, -> { worker.interrupt || interrupt }],
        [cancel + reserved * 2 / 3, -> { leave(now + @timeout) }]
      ]
    end

    def patience
      return if @due.nil? || @due.empty?

      [@due.first.first - PassengerTrio.now, 0].max
    end

    def heed_time
      @due.shift.last.call while @due && !@due.empty? && @due.first.first <= PassengerTrio.now
    end

    # Only the exit hooks are still waited for.
    def leave(ends)
      @ends = ends
      interrupt
    end

    # An exception in that very thread also ends what it waits for: a sleep, a lock, a slow database.
    def interrupt
      @lock.synchronize do
        next unless @interruptible

        @interrupted = true
        Thread.main.raise(Leave)
      end
    end

    # The supervisor is gone. From here it is a race between the exit hooks and the last second.
    def farewell
      @ends = PassengerTrio.now + LAST_SECOND
      if @worker
        @worker.stop
        @worker.interrupt
      end
      while PassengerTrio.now < @ends
        interrupt # again and again: an application may rescue Exception and go on
        sleep 0.05
      end
      exit!(0)
    end
  end

  # From options to an application; from an exception to advice.
  module Runtime
    REQUIRED_OPTIONS = {
      "app_root" => String, "startup_file" => String, "threads" => Integer, "socket_dir" => String,
      "socket_name" => String, "server_software" => String, "shutdown_timeout" => Numeric, "name" => String
    }.freeze
    GEMFILES = %w[Gemfile gems.rb].freeze

    class << self
      # Make the interpreter look as if it had been started for the application.
      def prepare(options)
        REQUIRED_OPTIONS.each do |name, kind|
          next if options[name].is_a?(kind)

          raise Unfit.new("loader", "The supervisor and its Ruby loader do not understand each other",
                          "The member #{name.inspect} of the options is missing or of another type.",
                          "Look for an installation of passenger_trio that mixes two versions.")
        end
        ARGV.clear
        # They are pipes, which Ruby buffers by the block; what an application prints is to be seen when it is printed.
        [$stdout, $stderr].each { |stream| stream.sync = true }
        use_bundler(options["app_root"])
      end

      def load_application(options)
        path = options["startup_file"]
        path = File.join(options["app_root"], "config.ru") if path.empty?
        unless File.file?(path)
          raise Unfit.new("configuration", "There is no file #{path}", "The startup file of the application does not exist, or is not a file.",
                          "The application's directory is #{options['app_root']}. Check the name of the startup file.")
        end
        load_rack
        app, = Rack::Builder.parse_file(path)
        return app if app.respond_to?(:call)

        raise Unfit.new("configuration", "#{path} has no Rack application: what it runs cannot be called",
                        "`run` was given #{app.class}. A Rack application is an object with a method `call`.", "Mend the `run` line of #{path}.")
      end

      # The members of the +error+ message for whatever came of loading.
      def explain(error)
        summary = "The application raised #{error.class}: #{message_of(error)}"
        category = "application"
        problem = "The exception was raised while the application was loaded. The backtrace says where."
        solution = "Mend the application. It is started again with the next request, or when it is restarted."
        case error
        when Unfit
          return members(error.category, error.message, error.problem, error.solution, "")
        when LoadError
          problem = "#{(error.path || message_of(error)).inspect} cannot be found by Ruby #{RUBY_VERSION} (#{ruby})."
          solution = "If it is a gem: #{how_to_install(error.path.to_s)} If it is installed for another Ruby, choose that with --ruby."
        when SyntaxError
          summary = "The application has a syntax error: #{message_of(error).lines.first.to_s.strip}"
          problem = "Ruby #{RUBY_VERSION} cannot read the file:\n#{message_of(error)}"
          solution = "Mend the line. If it is right for a later Ruby, choose that with --ruby: the application runs under #{ruby}."
        when SystemExit
          summary = "The application ended the process while it was loaded: exit(#{error.status})"
          problem = "A Rack application is loaded and must not exit. This often is a command-line program."
          solution = "Put what belongs to the command line under: if $PROGRAM_NAME == __FILE__"
        when NoMemoryError
          solution = "Give the application more memory, or let it load less."
        else
          category, problem, solution = explain_bundler(error) || [category, problem, solution]
        end
        members(category, summary, problem, solution, backtrace_of(error))
      end

      # Ruby's own, without the frames of these files, and with what caused it.
      def backtrace_of(error)
        text = +""
        seen = []
        while error && !seen.include?(error)
          seen << error
          # Names of files come in any encoding.
          first, *rest = (error.backtrace || []).map { |line| PassengerTrio.utf8(line) }.reject { |line| line.start_with?(OWN_FILES) }
          text << (seen.size > 1 ? "Caused by:\n" : "") << "#{first || '(no backtrace)'}: #{message_of(error)} (#{error.class})\n"
          rest.each { |line| text << "\tfrom #{line}\n" }
          error = error.cause
        end
        text
      end

      def message_of(error)
        PassengerTrio.utf8(error.message.to_s)
      rescue StandardError
        "(its message cannot be shown)"
      end

      private

      def members(category, summary, problem, solution, traceback)
        details = "Ruby #{RUBY_VERSION} (#{RUBY_ENGINE}), #{ruby}\nGemfile: #{ENV['BUNDLE_GEMFILE'] || 'none'}\nload path: #{$LOAD_PATH.map { |path| PassengerTrio.utf8(path.to_s) }.join(':')}"
        { category: category, summary: summary, problem: problem, solution: solution, traceback: traceback, details: details }
      end

      def ruby
        Gem.ruby
      rescue NameError
        "ruby"
      end

      def use_bundler(root)
        gemfile = ENV["BUNDLE_GEMFILE"] || GEMFILES.map { |name| File.join(root, name) }.find { |path| File.file?(path) }
        return unless gemfile

        ENV["BUNDLE_GEMFILE"] = gemfile
        begin
          require "bundler"
        rescue LoadError
          raise Unfit.new("configuration", "Bundler is not installed for #{ruby}", "The application has a #{File.basename(gemfile)}, which Bundler reads.",
                          "Install it (gem install bundler, or the package ruby-bundler), or choose another Ruby with --ruby.")
        end
        Bundler.setup
      end

      def load_rack
        require "rack"
        require "stringio"
        Rack::Utils # which Rack would load with the first request, in each process anew
      rescue LoadError => e
        raise unless e.path == "rack"

        raise Unfit.new("configuration", "Rack is not installed for #{ruby}", "Ruby #{RUBY_VERSION} finds no gem `rack`, with which a config.ru is read.",
                        "#{how_to_install('rack')} If it is installed for another Ruby, choose that with --ruby.")
      end

      def how_to_install(path)
        gem = path.split("/").first
        gem = "NAME" if gem.nil? || gem.empty?
        return "add `gem #{gem.inspect}` to #{ENV['BUNDLE_GEMFILE']} and run `bundle install`." if ENV["BUNDLE_GEMFILE"]

        "install it with `#{ruby} -S gem install #{gem}`, or from a package of the system."
      end

      # [category, problem, solution] of an error of Bundler's, or nil.
      def explain_bundler(error)
        return unless defined?(Bundler::BundlerError) && error.is_a?(Bundler::BundlerError)

        solution = case error.class.name
                   when "Bundler::RubyVersionMismatch" then "Choose the Ruby that the Gemfile asks for with --ruby, or change the Gemfile."
                   when "Bundler::GemfileNotFound" then "Check BUNDLE_GEMFILE."
                   when "Bundler::GemNotFound", "Bundler::SolveFailure", "Bundler::VersionConflict", "Bundler::GitError"
                     "Run `bundle install` with this Ruby (#{ruby}), or choose the one that has the gems with --ruby."
                   else "Run `bundle install` in the application's directory with #{ruby}: it says more."
                   end
        ["configuration", "Bundler cannot make the gems of #{ENV['BUNDLE_GEMFILE']} available to Ruby #{RUBY_VERSION}.", solution]
      end
    end
  end

  # -------------------------------------------------------------------------------------------------------------------
  # What a session is made of

  HEAD = 72 # H
  DATA = 68
  END_ = 69
  ABORT = 65
  RESPONSE = 82
  INTERIM = 73
  ERROR = 88
  UPGRADE = 85
  THE_END = [END_, 0].pack("CN").freeze
  THE_ABORT = [ABORT, 0].pack("CN").freeze

  BLOCK = 65_536 # asked from the kernel at a time; a body up to this size is copied next to its head, to be one write
  FILE_FRAME = 1024 * 1024
  DRAIN_BYTES = 1024 * 1024
  DRAIN_TIME = 0.2 # how much of a body that the application did not read is dropped for the sake of the stream
  MEMORY_BODY = 128 * 1024 # a rewindable body that is longer goes to a file

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

  # One request and its response.
  class Session
    # Status -> the front of a response head; as Rack calls it.
    FRONTS = Hash.new do |fronts, code|
      fronts[code] = "#{code}\0#{Rack::Utils::HTTP_STATUS_CODES[code]}\0".b.freeze
    end
    NO_BODY = { 204 => true, 304 => true }.freeze
    # Names of these lengths may be content-length, transfer-encoding or x-passenger-request-oob-work: the others are spared a look.
    SPECIAL_SIZES = { 14 => true, 17 => true, 28 => true }.freeze

    def initialize(worker, conn, input, env)
      @worker = worker
      @conn = conn
      @input = input
      @env = env
      @rack_input = env["rack.input"] # middleware may put another in its place
      @no_body = @is_head = env["REQUEST_METHOD"] == "HEAD"
      @length = nil # what the response head says of the body's length
      @sent = 0
      @flags = 0
      @head = @unchunked = @hijack = nil
      @begun = @done = @gone = @closed = @handed_over = @front_only = false
    end

    attr_reader :handed_over

    # What has come of the next session, or nil.
    def behind
      @input.behind
    end

    # Serve it. True if the stream may carry another session.
    def run(application)
      status = headers = body = failure = nil
      begin
        status, headers, body = application.call(@env)
        unless @handed_over
          make_head(status, headers)
          body = deliver(body)
        end
      rescue Leave
        raise
      rescue Exception => e # rubocop:disable Lint/RescueException -- an `exit` in a request as well
        raise unless @worker.ours? || e.is_a?(StandardError) # the end of a process that the application forked

        failure = e
        failed(e)
      ensure
        # A body is closed once: here, whatever happened.
        close(body)
      end
      failure ||= ClientGone.new("the client is gone") if !@done && (@gone || @input.aborted)
      after_reply(status, headers, failure)
      finish
    end

    # +env["rack.hijack"].call+: the application takes the connection over, before or instead of a response.
    def call
      return @env["rack.hijack_io"] if @handed_over
      raise IOError, "the response has begun" if @begun

      take_over
      push([UPGRADE, 0].pack("CN"))
      @env["rack.hijack_io"] = @conn
    end

    # +env["rack.early_hints"].call(headers)+
    def early_hints(headers)
      raise IOError, "the response has begun" if @begun

      hints = "103\0Early Hints\0".b
      pairs = headers.sum { |name, value| add_header(hints, name, value) }
      check_head(hints, pairs)
      push([INTERIM, hints.bytesize].pack("CN") << hints)
    end

    # For ResponseStream: a part of the body.
    def stream_write(chunk)
      raise ClientGone, "the client is gone" if @gone
      raise IOError, "the stream is closed" if @closed

      send_chunk(chunk)
      raise ClientGone, "the client is gone" if @gone
    ensure
      # Whoever writes may end by that, and close nothing.
      release if @gone && @handed_over
    end

    def stream_close
      return if @closed

      @closed = true
      @flags |= 1 if @handed_over
      begin
        send_end unless @done || @gone
      ensure
        release if @handed_over
      end
    end

    def stream_read
      @rack_input
    end

    private

    def make_head(status, headers)
      code = status.to_i
      @front_only = code == 101
      raise ArgumentError, "not the status of a response: #{status.inspect}" unless code.between?(200, 999) || @front_only

      @no_body ||= NO_BODY.key?(code)
      head = FRONTS[code].dup
      pairs = 0
      headers.each do |name, value|
        if value.instance_of?(String) && name.instance_of?(String) && !SPECIAL_SIZES.key?(name.bytesize) && !value.include?("\n") &&
           !name.start_with?("rack.")
          head << ascii(name) << "\0" << ascii(value) << "\0"
          pairs += 1
        else
          pairs += add_header(head, name, value)
        end
      end
      check_head(head, pairs)
      @head = head
    end

    # The number of pairs that it made.
    def add_header(head, name, value)
      name = name.to_s
      case name.downcase
      when /\Arack\./
        @hijack = value if name == "rack.hijack"
        return 0 # for the server, not for the client
      when "content-length"
        value = Array(value).join("\n").strip
        @length = value =~ /\A\d{1,18}\z/ ? value.to_i : nil
      when "transfer-encoding"
        @unchunked = Unchunked.new if value.to_s.casecmp?("chunked")
        return 0
      when "x-passenger-request-oob-work"
        @flags |= 2
        return 0
      end
      values = value.is_a?(Array) ? value : value.to_s.split("\n")
      values = [""] if values.empty? && value.is_a?(String)
      values.each { |text| head << ascii(name) << "\0" << ascii(text.to_s) << "\0" }
      values.size
    end

    def check_head(head, pairs)
      raise ArgumentError, "a response header has a NUL byte" if head.count("\0") != 2 + (2 * pairs)
      raise ArgumentError, "a response header has an empty name" if head.include?("\0\0") && head.split("\0", -1).each_slice(2).drop(1)[0..-2].any? { |name,| name.empty? }
      raise ArgumentError, "the response head is longer than #{MAX_HEAD} bytes" if head.bytesize > MAX_HEAD
    end

    # A string whose bytes can be put behind any others.
    def ascii(text)
      text.ascii_only? || text.encoding == Encoding::BINARY ? text : text.b
    end

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

    # A body that writes for itself (Rack 3), or the partial hijack. Of a 101 it gets the connection as it is.
    def stream(callable)
      if @front_only
        take_over
        push([RESPONSE, @head.bytesize].pack("CN") << @head << [UPGRADE, 0].pack("CN"))
        return callable.call(@conn)
      end
      return send_end if @no_body

      @begun = true
      push([RESPONSE, @head.bytesize].pack("CN") << @head)
      stream = ResponseStream.new(self)
      callable.call(stream)
      # If it is not closed yet it is written to from somewhere else from here on, and ends when it is closed there.
      stream.unless_closed do
        next if @gone || @done # it is whole by its Content-Length, and the stream may be used again: what is written now is too much

        @worker.lend(@conn)
        @handed_over = true
      end
    end

    # The connection is the application's from here: behind the request, whose body may still be on its way.
    def take_over
      raise ClientGone, "the client is gone" unless @input.skip

      @handed_over = @begun = true
      @worker.give_away(@conn)
    end

    # A stream that was handed over has ended.
    def release
      @worker.take_back(@conn)
    end

    def end_frame
      raise ClientGone, "the client is gone" if @input.broken

      @input.answered!
      flags = @input.aborted || @handed_over ? @flags | 1 : @flags
      flags.zero? ? THE_END : [END_, 1, flags].pack("CNC")
    end

    def gave_up?
      return PassengerTrio.readable?(@conn) && aborted_behind if @input.is_a?(Whole)

      @input.look
      @input.aborted || @input.broken
    end

    # Behind a whole request only an abort may come, or the end.
    def aborted_behind
      @input = Input.new(@conn, THE_END)
      @input.look
      true
    end

    def tell_excess(size)
      PassengerTrio.say("passenger_trio: #{size} bytes beyond the Content-Length of the response were dropped\n")
      @sent += size
    end

    def failed(error)
      @handed_over = false # a connection that it had taken over is ended: nobody may be left who would
      return if @gone || @input.aborted || @input.broken # It was told that nobody waits any more, and did as it should.

      report = Runtime.backtrace_of(error)
      PassengerTrio.say(report)
      return if @begun # No end: the client must see that the response is incomplete (if it was not complete before).

      # The end of a backtrace says less than its front, unlike in other languages.
      texts = [[error.class.name.to_s, 1024], [Runtime.message_of(error), 16_384], [report, 65_536]].map do |text, most|
        "#{text.gsub("\0", '\0').byteslice(0, most).scrub('')}\0".b
      end
      payload = texts.join
      @begun = true
      push([ERROR, payload.bytesize].pack("CN") << payload << end_frame)
      @done = true
    rescue ClientGone
      nil
    end

    def close(body)
      body.close if body.respond_to?(:close)
    rescue Leave
      raise
    rescue Exception => e # rubocop:disable Lint/RescueException
      PassengerTrio.say(Runtime.backtrace_of(e))
    end

    # What the application wanted to do when the client has its answer.
    def after_reply(status, headers, error)
      # The application may have emptied its environment.
      @env["rack.after_reply"]&.each { |callback| guarded { callback.call } }
      @env["rack.response_finished"]&.reverse_each { |callback| guarded { callback.call(@env, status, headers, error) } }
    end

    def guarded
      yield
    rescue Leave
      raise
    rescue Exception => e # rubocop:disable Lint/RescueException
      PassengerTrio.say(Runtime.backtrace_of(e))
    end

    def finish
      return false if @handed_over

      @rack_input.discard if @rack_input.is_a?(RewindableInput)
      if @input.aborted && !@done && !@input.broken
        begin
          push([END_, 1, 1].pack("CNC"))
        rescue ClientGone
          nil
        end
      end
      @done && !@input.aborted && !@gone && @input.finish
    end

    def push(*parts)
      @conn.write(*parts)
    rescue SystemCallError, IOError
      @gone = true
      raise ClientGone, "the client is gone"
    end
  end

  # What a streaming body writes to. It may be used from any thread, and after the application has returned.
  class ResponseStream
    def initialize(session)
      @session = session
      @lock = Mutex.new
      @closed = false
    end

    def write(*parts)
      @lock.synchronize { parts.sum { |part| part.to_s.bytesize.tap { @session.stream_write(part.to_s) } } }
    end

    def <<(part)
      write(part)
      self
    end

    def write_nonblock(part, **)
      write(part)
    end

    def read(*arguments)
      input.read(*arguments)
    end

    def gets
      input.gets
    end

    # What has come: a client may wait for an answer to it before it sends the rest.
    def readpartial(*arguments)
      input.readpartial(*arguments)
    end

    # It waits all the same: nobody could wait for this stream with IO.select.
    def read_nonblock(*arguments, exception: true)
      readpartial(*arguments)
    rescue EOFError => e
      raise if exception || e.is_a?(ClientGone)
    end

    def flush
      self
    end

    # Nobody closes it while the block runs.
    def unless_closed
      @lock.synchronize { yield unless @closed }
    end

    def close_read; end

    def close_write
      close
    end

    def close(*)
      @lock.synchronize do
        next if @closed

        @closed = true
        @session.stream_close
      end
    rescue ClientGone
      nil
    end

    def closed?
      @closed
    end

    private

    def input
      @session.stream_read
    end
  end

  # Serves sessions on a Unix socket, +threads+ streams at a time.
  class Worker
    attr_reader :rack3

    def initialize(application, options)
      @application = application
      @threads = [1, options["threads"]].max
      @path = File.join(options["socket_dir"], options["socket_name"])
      @rack3 = Rack.release.to_i >= 3
      @nothing = Whole.new
      @accepting = Mutex.new
      @lending = Mutex.new
      @came_back = ConditionVariable.new
      @lent = {}
      @crew = []
      @ended = Queue.new # its threads, as they end
      @common = {
        "GATEWAY_INTERFACE" => "CGI/1.1", "SERVER_SOFTWARE" => options["server_software"], "rack.version" => [1, 3],
        "rack.errors" => $stderr, "rack.multithread" => @threads > 1, "rack.multiprocess" => RUBY_ENGINE == "ruby",
        "rack.run_once" => false, "rack.hijack?" => true
      }.flatten.freeze # names and values in turn
    end

    def listen
      @pid = Process.pid
      @listener = UNIXServer.new(@path)
      File.chmod(0o600, @path)
      @stopped, @stop = IO.pipe
      PassengerTrio.own(@listener, @stopped, @stop)
    end

    # Not in a process that the application forked in a request, and which has come back out of it: the socket and the exit are not its own.
    def ours?
      @pid == Process.pid
    end

    def sockets
      [{ address: "unix:#{@path}", protocol: "session", concurrency: @threads }]
    end

    # Until +stop+, and until the sessions in hand are finished. In the main thread.
    def run
      if @threads == 1
        serve
      else
        @threads.times { man }
        until @crew.empty?
          @crew.delete(thread = @ended.pop)
          # One that the application has ended (Thread.exit) is replaced: so many sessions at a time were promised.
          man unless thread.value
        end
      end
      @lending.synchronize { @came_back.wait(@lending) until @lent.empty? }
    end

    # Take no new sessions; finish those whose heads have arrived. From any thread, any number of times.
    #
    # Nobody can connect when the path is gone; who has connected is in the kernel's queue, or waits for us as a stream. Whoever waits for a
    # stream or for a head waits for the end of this pipe as well, and looks first whether something has come: what the
    # supervisor sent before it told us to stop is there by then.
    def stop
      File.unlink(@path)
    rescue SystemCallError
      nil
    ensure
      @stop.close unless @stop.closed?
    end

    # Raise an exception in the sessions in hand. False: they are the main thread's.
    def cancel(error)
      return false if @threads == 1

      PassengerTrio.say("passenger_trio: the process is to end, and the requests that have not are cancelled\n") unless @crew.empty?
      @crew.dup.each { |thread| thread.raise(error) if thread.alive? }
    end

    # End the threads, sessions and all. False: there are none.
    def interrupt
      @threads != 1 && @crew.each(&:kill)
    end

    # A stream is the application's from here: we neither close it nor wait for it.
    def give_away(conn)
      PassengerTrio.disclaim(conn)
    end

    # A stream on which somebody else writes frames, until +take_back+.
    def lend(conn)
      @lending.synchronize { @lent[conn] = true }
    end

    def take_back(conn)
      hang_up(conn)
      @lending.synchronize do
        @lent.delete(conn)
        @came_back.broadcast
      end
    end

    private

    def man
      @crew << Thread.new do
        begin
          serve
          true
        rescue Leave
          true
        ensure
          @ended << Thread.current
        end
      end
    end

    # One thread: accept a stream, serve it to its end, and again.
    def serve
      PassengerTrio.call_event(:starting_request_handler_thread)
      while (conn = accept)
        PassengerTrio.own(conn)
        kept = true
        begin
          kept = serve_stream(conn)
        rescue SystemCallError, IOError
          nil # The stream broke between two sessions.
        ensure
          # One that was handed over belongs to somebody else.
          hang_up(conn) unless kept == :handed_over
        end
      end
    rescue IOError
      nil # We are in a process that the application forked, and closed everything.
    end

    def accept
      @accepting.synchronize do
        ready, = IO.select([@listener, @stopped])
        return @listener.accept if ready.include?(@listener)
      end
      nil
    rescue Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS, Errno::ECONNABORTED, Errno::EAGAIN => e
      PassengerTrio.say("passenger_trio: cannot accept a connection: #{e.message}\n")
      sleep 0.1
      retry
    end

    def hang_up(conn)
      # A process that the application forked may hold a copy, so closing alone would not end it.
      conn.shutdown(2)
    rescue SystemCallError, IOError
      nil
    ensure
      PassengerTrio.let_go(conn)
    end

    # The hot loop. A request without a body costs one wait, one read, one pass over its head, the application, and one write.
    def serve_stream(conn)
      buffer = String.new(capacity: BLOCK)
      waits = [conn, @stopped]
      behind = nil
      loop do
        if behind
          buffer = behind
        else
          ready, = IO.select(waits)
          return unless ready.include?(conn)

          PassengerTrio.read_some(conn, buffer)
        end
        kind, length = buffer.unpack("CN")
        size = buffer.bytesize
        if kind == HEAD && length && size >= length + 5
          head = buffer.byteslice(5, length)
          arrived = buffer.byteslice(length + 5, size)
        else
          head, arrived = slow_head(conn, buffer.dup)
        end
        return if head.nil?

        session = begin_session(conn, head, arrived)
        if session && session.run(@application)
          behind = session.behind
          next
        end
        return session && session.handed_over ? :handed_over : nil
      end
    end

    # nil: what came is not in the contract.
    def begin_session(conn, head, arrived)
      texts = head.split("\0", -1)
      return if texts.pop != "" || texts.size.odd?

      # All at once, ours behind theirs. As many names as pairs: none twice, and none of ours among theirs.
      texts.concat(@common)
      env = texts.size < 1000 ? Hash[*texts] : texts.each_slice(2).to_h
      return if env.size * 2 != texts.size || env.key?("")
      return unless env["REQUEST_METHOD"] && env["REQUEST_URI"] && env["SCRIPT_NAME"] && env["PATH_INFO"] && env["QUERY_STRING"] && env["SERVER_NAME"] &&
                    env["SERVER_PORT"] && env["SERVER_PROTOCOL"] && env["REMOTE_ADDR"] && env["REMOTE_PORT"] && env["REQUEST_SCHEME"]

      if arrived == THE_END
        body = @nothing
        env["rack.input"] = StringIO.new("".b)
      else
        body = Input.new(conn, arrived)
        return if body.broken

        env["rack.input"] = input_for(body)
      end
      scheme = env["REQUEST_SCHEME"]
      env["HTTPS"] = "on" if scheme == "https"
      env["rack.url_scheme"] = scheme
      env["rack.after_reply"] = []
      env["rack.response_finished"] = []
      session = Session.new(self, conn, body, env)
      env["rack.hijack"] = session
      env["rack.early_hints"] = session.method(:early_hints)
      return session unless body.aborted

      conn.write([END_, 1, 1].pack("CNC"))
      nil
    end

    def input_for(body)
      return StringIO.new(body.read) if body.ended && !body.aborted

      @rack3 ? body : RewindableInput.new(body)
    end

    # [payload of the head, what came behind it] of a head that came in pieces; nil if it is none.
    def slow_head(conn, data)
      loop do
        # The type and the length are judged as soon as they are here: garbage is not waited for.
        kind, length = data.unpack("CN")
        return if kind != HEAD
        return if length && length > MAX_HEAD
        return [data.byteslice(5, length), data.byteslice(length + 5, data.bytesize)] if length && data.bytesize >= length + 5

        data << PassengerTrio.read_some(conn)
      end
    end
  end

  # The order of a process's last things, the same for every worker.
  module Life
    class << self
      # Connect, and run the block with the control connection and the options; its value is the exit status.
      def lead(role)
        path = ENV.delete("PASSENGER_TRIO_SPAWN_SOCKET")
        token = ENV.delete("PASSENGER_TRIO_SPAWN_TOKEN")
        abort "This program is started by passenger_trio, not by hand." unless path && token
        # The first hook to be registered is the last to run.
        at_exit { @lifeline.part if @lifeline }
        status = 0
        Thread.handle_interrupt(Leave => :never) do
          begin
            status = yield path, token
          rescue Leave
            status = 0
          rescue Hangup
            status = 1
          end
          @lifeline.end if @lifeline
        end
        exit status
      end

      def watch(control)
        @lifeline = Lifeline.new(control).begin
      end

      def disown
        @lifeline = nil
      end

      # The application's own code runs interruptible.
      def interruptible(&block)
        Thread.handle_interrupt(Leave => :immediate, &block)
      end

      # Load, and explain what went wrong. The value of the block, or nil when the error was reported.
      def reporting(control)
        yield
      rescue Leave
        raise
      rescue Exception => e # rubocop:disable Lint/RescueException
        # Where Leave comes upon another's cleaning up (a lock of a library's, say) that can fail, and its error takes Leave's place.
        raise Leave if @lifeline.interrupted

        @lifeline.end
        control.tell("error", **Runtime.explain(e))
        PassengerTrio.say(Runtime.backtrace_of(e))
        nil
      end

      def load(control, options, role)
        application = nil
        control.step("prepare_runtime") do
          Runtime.prepare(options)
          name_process(options, role)
        end
        control.step("load_application") { application = Runtime.load_application(options); yield if block_given? }
        application
      end

      # Listen, serve to the end. The exit status.
      def work(control, lifeline, application, options, forked)
        worker = reporting(control) do
          interruptible do
            unless forked
              PassengerTrio.call_event(:starting_worker_process, false)
            end
            Worker.new(application, options).tap { |made| control.step("listen") { made.listen } }
          end
        end
        return 1 unless worker

        begin
          lifeline.timeout = options["shutdown_timeout"]
          lifeline.worker = worker
          interruptible do
            control.tell("ready", sockets: worker.sockets, application: options["name"])
            worker.run
          end
        ensure
          if worker.ours?
            worker.stop
            stopping
          end
        end
        0
      end

      def name_process(options, role)
        Process.setproctitle("passenger_trio: #{role == 'preloader' ? 'preloader of ' : ''}#{options['name']}")
      rescue NotImplementedError, StandardError
        nil
      end

      private

      def stopping
        PassengerTrio.call_event(:stopping_worker_process)
      rescue StandardError => e
        PassengerTrio.say(Runtime.backtrace_of(e))
      end
    end
  end
end

# Applications written for Passenger say this name.
module PhusionPassenger
  class << self
    def on_event(name, &block)
      PassengerTrio.on_event(name, &block)
    end
  end
end
