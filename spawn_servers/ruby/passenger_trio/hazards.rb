# frozen_string_literal: true

# Hazards: what a loaded application holds that forked processes cannot share. Used by rack_preloader.rb.
#
# Knows /proc and Ruby's libraries. What it finds is reported by its caller; the supervisor decides (CONTRACT.md, "A preloader").
#
# A fork copies memory and one thread, and shares every open descriptor. What can be repaired is repaired: database
# connections are closed (before_fork.rb), and open again where they are used; Ruby itself renews its random numbers and locks.
# Files can be shared, and threads that are marked as +fork_safe+, as ActiveRecord marks its reaper. The rest is a hazard.
#
# Laws:
#
# * Looking is cheap: it lists two directories of /proc, and reads more only about what it found.
# * What it does not understand is a hazard.

module PassengerTrio
  # What the process holds now and did not hold when this object was made.
  class HeldResources
    MAX_HAZARDS = 20 # reported
    SETTLE_TIME = 0.05 # seconds for threads and processes that are about to end
    KINDS = { "eventpoll" => "epoll", "inotify" => "inotify" }.freeze # of anonymous inodes; any other: "descriptor"
    HARMLESS = %w[pidfd].freeze
    # Threads of libraries that start another after a fork (Timeout), or do not need it there (concurrent-ruby's collects garbage).
    FORK_SAFE_THREADS = [/@Timeout stdlib thread/, %r{concurrent/atomic/ruby_thread_local_var\.rb}].freeze

    def initialize
      @threads = Thread.list
      @descriptors = descriptors
    end

    # A list of {kind:, what:}. Threads and processes that are about to end get a moment for that.
    def hazards
      found = find
      if found.any? { |hazard| %w[thread process].include?(hazard[:kind]) }
        sleep SETTLE_TIME
        found = find
      end
      found.first(MAX_HAZARDS)
    end

    private

    def find
      threads + processes + open_descriptors + ExitHooks.removing.map { |what| { kind: "exit_hook", what: what } }
    end

    def threads
      found = Thread.list.reject { |thread| @threads.include?(thread) || thread == Thread.main || fork_safe?(thread) }
      found.map { |thread| { kind: "thread", what: "the thread #{name_of(thread)}" } }
    end

    def name_of(thread)
      thread.name || thread.inspect[/ ([^ ]+:\d+) /, 1] || "without a name"
    end

    def fork_safe?(thread)
      thread.thread_variable_get(:fork_safe) || FORK_SAFE_THREADS.any? { |known| known.match?(thread.inspect) }
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

        kind, what = classify(number, target)
        kind && { kind: kind, what: what }
      end.compact
    end

    # Number => target, of all open descriptors but those of files, directories and devices.
    def descriptors
      Dir.children("/proc/self/fd").each_with_object({}) do |number, found|
        target = File.readlink("/proc/self/fd/#{number}")
        stat = File.stat("/proc/self/fd/#{number}")
        found[number.to_i] = target unless stat.file? || stat.directory? || stat.chardev? || stat.blockdev?
      rescue SystemCallError
        next # the descriptor with which the directory is listed
      end
    end

    # Descriptors of Ruby itself, with which its threads wake each other.
    def reserved?(number)
      IO.for_fd(number, autoclose: false)
      false
    rescue ArgumentError
      true
    rescue SystemCallError
      false
    end

    def classify(number, target)
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
      return "a socket that listens on #{show(socket.local_address)}" if socket.getsockopt(:SOCKET, :ACCEPTCONN).int == 1

      peer = show(socket.remote_address)
      peer.empty? ? "one of two connected sockets" : "a connection to #{peer}"
    rescue StandardError
      "a socket (descriptor #{number})"
    end

    def show(address)
      address.unix? ? address.unix_path : address.inspect_sockaddr
    end

    def read(path)
      PassengerTrio.utf8(File.binread(path))
    rescue SystemCallError
      ""
    end
  end
end
