# frozen_string_literal: true

# What a Rack application holds when it has been loaded, and whether its processes can be forked.

module PassengerTrio
  # What the process holds more than at the moment in which this was made.
  class Holdings
    MOST_FOUND = 20
    SETTLE_TIME = 0.05 # seconds for threads and processes that are about to end
    KINDS = { "eventpoll" => "epoll", "inotify" => "inotify" }.freeze # of anonymous inodes; any other: "descriptor"
    HARMLESS = %w[pidfd].freeze
    # Threads of libraries that start a new one where the old one is gone, or that do without (concurrent-ruby's frees what threads leave).
    FORK_AWARE = [/@Timeout stdlib thread/, %r{concurrent/atomic/ruby_thread_local_var\.rb}].freeze

    def initialize
      @threads = Thread.list
      @descriptors = descriptors
    end

    # Whatever goes wrong here is found by +hazards+.
    def put_right
      if defined?(ActiveRecord::Base) && ActiveRecord::Base.respond_to?(:connection_handler)
        handler = ActiveRecord::Base.connection_handler
        handler.method(:clear_all_connections!).arity.zero? ? handler.clear_all_connections! : handler.clear_all_connections!(:all)
      end
      Sequel::DATABASES.each(&:disconnect) if defined?(Sequel::DATABASES)
    rescue StandardError => e
      PassengerTrio.say(Runtime.backtrace_of(e))
    end

    # What must not be shared by processes. What is about to end is given a moment.
    def hazards
      found = look
      if found.any? { |hazard| %w[thread process].include?(hazard[:kind]) }
        sleep SETTLE_TIME
        found = look
      end
      found.first(MOST_FOUND)
    end

    private

    def look
      threads + processes + open_descriptors + ExitHooks.removing.map { |what| { kind: "exit_hook", what: what } }
    end

    def threads
      found = Thread.list.reject { |thread| @threads.include?(thread) || thread == Thread.main || fork_safe?(thread) }
      found.map { |thread| { kind: "thread", what: "the thread #{thread.name || thread.inspect[/ ([^ ]+:\d+) /, 1] || 'without a name'}" } }
    end

    def fork_safe?(thread)
      thread.thread_variable_get(:fork_safe) || FORK_AWARE.any? { |known| known.match?(thread.inspect) }
    end

    def processes
      pids = Dir.glob("/proc/self/task/*/children").flat_map { |path| read(path).split }
      pids.map { |pid| describe_process(pid) }.compact
    end

    def describe_process(pid)
      state = read("/proc/#{pid}/stat").rpartition(")").last.split.first
      return if state.nil? || %w[Z X].include?(state)

      { kind: "process", what: "the process #{pid} (#{read("/proc/#{pid}/cmdline").tr("\0", ' ').strip[0, 80]})" }
    end

    def open_descriptors
      descriptors.map do |number, target|
        next if @descriptors[number] == target || reserved?(number)

        kind, what = judge(number, target)
        kind && { kind: kind, what: what }
      end.compact
    end

    # Number => what it is, of all that are open, but for plain files and devices.
    def descriptors
      Dir.children("/proc/self/fd").each_with_object({}) do |number, found|
        target = File.readlink("/proc/self/fd/#{number}")
        stat = File.stat("/proc/self/fd/#{number}")
        found[number.to_i] = target unless stat.file? || stat.directory? || stat.chardev? || stat.blockdev?
      rescue SystemCallError
        next # It was the listing's own.
      end
    end

    # Ruby's own, with which its threads wake each other.
    def reserved?(number)
      IO.for_fd(number, autoclose: false)
      false
    rescue ArgumentError
      true
    rescue SystemCallError
      false
    end

    def judge(number, target)
      case target
      when /\Asocket:/ then ["socket", describe_socket(number)]
      when /\Aanon_inode:\[?([^\]]*)/
        return if HARMLESS.include?($1)

        [KINDS.fetch($1, "descriptor"), "the #{$1} descriptor (#{number})"]
      else ["pipe", target.start_with?("pipe:") ? "a pipe (descriptor #{number})" : "the pipe #{target}"]
      end
    end

    def describe_socket(number)
      socket = Socket.for_fd(number)
      socket.autoclose = false
      return "a socket that listens on #{shown(socket.local_address)}" if socket.getsockopt(:SOCKET, :ACCEPTCONN).int == 1

      peer = shown(socket.remote_address)
      peer.empty? ? "one of two connected sockets" : "a connection to #{peer}"
    rescue StandardError
      "a socket (descriptor #{number})"
    end

    def shown(address)
      address.unix? ? address.unix_path : address.inspect_sockaddr
    end

    def read(path)
      PassengerTrio.utf8(File.binread(path))
    rescue SystemCallError
      ""
    end
  end
end
