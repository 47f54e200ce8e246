# frozen_string_literal: true

# What a preloader does before its first fork: close connections that open again by themselves. Used by rack_preloader.rb.
#
# Knows the libraries whose connections these are, if the application has loaded them.

module PassengerTrio
  # Before hazards are looked for.
  module BeforeFork
    # Errors are only logged: a connection that is still open is a hazard, and found.
    def self.close_database_connections
      if defined?(ActiveRecord::Base) && ActiveRecord::Base.respond_to?(:connection_handler)
        handler = ActiveRecord::Base.connection_handler
        clear = handler.method(:clear_all_connections!)
        clear.arity.zero? ? clear.call : clear.call(:all)
      end
      Sequel::DATABASES.each(&:disconnect) if defined?(Sequel::DATABASES)
    rescue StandardError => e
      PassengerTrio.log(Advice.backtrace_of(e))
    end
  end
end
