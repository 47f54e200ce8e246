# frozen_string_literal: true

# Advice for a person: makes the members of an "error" message from an exception, and backtraces.
#
# Knows Ruby's and Bundler's exceptions. Changes nothing.
#
# Law: whatever was raised, the answer is text. An exception whose message raises has a message, too.

module PassengerTrio
  module Advice
    class << self
      # The members of the +error+ message for an exception that was raised while the application was loaded.
      def explain(error)
        summary = "The application raised #{error.class}: #{message_of(error)}"
        category = "application"
        problem = "The exception was raised while the application was loaded. The backtrace says where."
        solution = "Fix the application. It is started again with the next request, or when it is restarted."
        case error
        when StartupError
          return members(error.category, error.message, error.problem, error.solution, "")
        when LoadError
          problem = "#{(error.path || message_of(error)).inspect} cannot be found by Ruby #{RUBY_VERSION} (#{ruby})."
          solution = "If it is a gem: #{how_to_install(error.path.to_s)} If it is installed for another Ruby, choose that with --ruby."
        when SyntaxError
          summary = "The application has a syntax error: #{message_of(error).lines.first.to_s.strip}"
          problem = "Ruby #{RUBY_VERSION} cannot read the file:\n#{message_of(error)}"
          solution = "Fix the line. If it is right for a later Ruby, choose that with --ruby: the application runs under #{ruby}."
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

      # Ruby's backtrace without the frames of the loader, and with the causes.
      def backtrace_of(error)
        text = +""
        seen = []
        while error && !seen.include?(error)
          seen << error
          # File names come in any encoding.
          lines = (error.backtrace || []).map { |line| PassengerTrio.utf8(line) }
          first, *rest = lines.reject { |line| line.start_with?(LOADER_FILES) }
          text << "Caused by:\n" if seen.size > 1
          text << "#{first || '(no backtrace)'}: #{message_of(error)} (#{error.class})\n"
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

      # The interpreter's path.
      def ruby
        Gem.ruby
      rescue NameError
        "ruby" # started with --disable-gems
      end

      # :param path: what `require` did not find.
      def how_to_install(path)
        gem = path.split("/").first
        gem = "NAME" if gem.nil? || gem.empty?
        return "add `gem #{gem.inspect}` to #{ENV['BUNDLE_GEMFILE']} and run `bundle install`." if ENV["BUNDLE_GEMFILE"]

        "install it with `#{ruby} -S gem install #{gem}`, or from a package of the system."
      end

      private

      def members(category, summary, problem, solution, traceback)
        load_path = $LOAD_PATH.map { |path| PassengerTrio.utf8(path.to_s) }.join(":")
        details = "Ruby #{RUBY_VERSION} (#{RUBY_ENGINE}), #{ruby}\n" \
                  "Gemfile: #{ENV['BUNDLE_GEMFILE'] || 'none'}\n" \
                  "load path: #{load_path}"
        { category: category, summary: summary, problem: problem, solution: solution, traceback: traceback, details: details }
      end

      # [category, problem, solution] of an error of Bundler's, or nil.
      def explain_bundler(error)
        return unless defined?(Bundler::BundlerError) && error.is_a?(Bundler::BundlerError)

        solution = case error.class.name
                   when "Bundler::RubyVersionMismatch"
                     "Choose the Ruby that the Gemfile asks for with --ruby, or change the Gemfile."
                   when "Bundler::GemfileNotFound"
                     "Check BUNDLE_GEMFILE."
                   when "Bundler::GemNotFound", "Bundler::SolveFailure", "Bundler::VersionConflict", "Bundler::GitError"
                     "Run `bundle install` with this Ruby (#{ruby}), or choose the one that has the gems with --ruby."
                   else
                     "Run `bundle install` in the application's directory with #{ruby}: it says more."
                   end
        ["configuration", "Bundler cannot make the gems of #{ENV['BUNDLE_GEMFILE']} available to Ruby #{RUBY_VERSION}.", solution]
      end
    end
  end
end
