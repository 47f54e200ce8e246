# frozen_string_literal: true

# Loads a Rack application once for passenger_trio, and forks workers of it on request.
#
#     ruby rack_preloader.rb --preload
#
# Read ../CONTRACT.md first, then passenger_trio.rb, which states the reading order of the other files.
#
# Laws:
#
# * One thread and no event loop when it forks.
# * A forked process first closes and resets what belongs to the preloader (after_fork.rb).
# * Before the first fork the memory is prepared for sharing, no database connection is open, and the supervisor knows the
#   application's hazards.

require_relative "passenger_trio"
require_relative "passenger_trio/before_fork" # connections that open again by themselves are closed
require_relative "passenger_trio/exit_hooks" # hooks that belong to one process
require_relative "passenger_trio/hazards" # what forked processes cannot share
require_relative "passenger_trio/preloader" # the loop that forks

PassengerTrio::LoaderProcess.run do |path, token|
  process = PassengerTrio::LoaderProcess
  control = PassengerTrio::ControlConnection.new(path, "preloader")
  options = control.shake_hands(token)
  connection_watcher = process.start_connection_watcher(control)
  held = nil
  application = process.report_errors(control) do
    process.interruptible do
      unless Process.respond_to?(:fork)
        raise PassengerTrio::StartupError.new(
          "configuration", "#{RUBY_ENGINE} cannot fork", "A preloader forks its workers, and this Ruby has no fork.",
          "Use --spawn-method direct."
        )
      end
      held = PassengerTrio::HeldResources.new
      PassengerTrio::ExitHooks.watch do
        process.load_application(control, options, "preloader") do
          PassengerTrio::BeforeFork.close_database_connections
          PassengerTrio.prepare_shared_memory
        end
      end
    end
  end
  next 1 unless application

  process.interruptible { connection_watcher.stop_thread }
  hazards = held.hazards
  control.send_message("ready", application: options["name"], hazards: hazards)
  preloader = PassengerTrio::Preloader.new(control, connection_watcher, hazards)
  case preloader.run
  when :end
    # Exit hooks would remove what the workers use.
    exit!(0) if preloader.children?
    next 0
  when :serve
    # From here on this is a worker like any other: what the application holds is its own.
    connection_watcher.close
    connection_watcher = process.start_connection_watcher(control)
    process.set_process_title(options, "worker")
    next process.serve(control, connection_watcher, application, options, false)
  end

  # From here on this is a forked worker. The fork hook has closed the preloader's control connection.
  started_at = PassengerTrio.now
  begin
    control = PassengerTrio::ControlConnection.new(path, "worker")
    options = control.shake_hands(preloader.token)
  rescue SystemCallError
    next 1
  end
  connection_watcher = process.start_connection_watcher(control)
  ready = process.report_errors(control) do
    process.interruptible do
      control.step("after_fork", started_at) do
        process.set_process_title(options, "worker")
        PassengerTrio.call_event(:starting_worker_process, true)
        true
      end
    end
  end
  ready ? process.serve(control, connection_watcher, application, options, true) : 1
end
