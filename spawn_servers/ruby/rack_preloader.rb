# frozen_string_literal: true

# Loads a Rack application once, and forks workers of it when passenger_trio asks. See passenger_trio.rb, and spawn_servers/CONTRACT.md.
#
#     ruby rack_preloader.rb --preload
#
# Laws: it has one thread and runs no event loop when it forks; what a forked process does first is to let go of everything that is the
# preloader's (PassengerTrio.disown, through the hook that every fork goes through); before the first fork the memory is made ready
# to be shared, no database connection is open, and the supervisor knows what the application holds that processes cannot share.

require_relative "passenger_trio"
require_relative "passenger_trio/exit_hooks" # whose they are
require_relative "passenger_trio/holdings" # what an application holds that processes cannot share
require_relative "passenger_trio/preloader" # the loop that forks

PassengerTrio::Life.lead("preloader") do |path, token|
  life = PassengerTrio::Life
  control = PassengerTrio::Control.new(path, "preloader")
  options = control.greet(token)
  lifeline = life.watch(control)
  holdings = nil
  application = life.reporting(control) do
    life.interruptible do
      unless Process.respond_to?(:fork)
        raise PassengerTrio::Unfit.new("configuration", "#{RUBY_ENGINE} cannot fork", "A preloader forks its workers, and this Ruby has no fork.",
                                       "Use --spawn-method direct.")
      end
      holdings = PassengerTrio::Holdings.new
      PassengerTrio::ExitHooks.watch do
        life.load(control, options, "preloader") do
          holdings.put_right
          PassengerTrio.share_memory
        end
      end
    end
  end
  next 1 unless application

  life.interruptible { lifeline.release }
  hazards = holdings.hazards
  control.tell("ready", application: options["name"], hazards: hazards)
  preloader = PassengerTrio::Preloader.new(control, lifeline, hazards)
  case preloader.run
  when :end
    # The exit hooks are the workers' while there are any: what they would remove is in use.
    exit!(0) if preloader.children?
    next 0
  when :serve
    # From here this is a worker like any that was started: what it holds is its own.
    lifeline.give_way
    life.watch(control).tap { |another| lifeline = another }
    life.name_process(options, "worker")
    next life.work(control, lifeline, application, options, false)
  end

  # From here this is a forked worker. Its preloader's control connection went with the fork.
  begun = PassengerTrio.now
  begin
    control = PassengerTrio::Control.new(path, "worker")
    options = control.greet(preloader.token)
  rescue SystemCallError
    next 1
  end
  lifeline = life.watch(control)
  ready = life.reporting(control) do
    life.interruptible do
      control.step("after_fork", begun) do
        life.name_process(options, "worker")
        PassengerTrio.call_event(:starting_worker_process, true)
        true
      end
    end
  end
  ready ? life.work(control, lifeline, application, options, true) : 1
end
