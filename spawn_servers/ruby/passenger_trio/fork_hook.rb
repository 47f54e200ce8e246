# frozen_string_literal: true

# What is this process's alone, and not that of a process which is forked from it.

module PassengerTrio
  @belongings = {}
  @handlers = {}

  class << self
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
end
