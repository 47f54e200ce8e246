# frozen_string_literal: true

# What rack_loader.rb and rack_preloader.rb share: everything but the order of things and the forking.
#
# They run a Rack application for passenger_trio, in the application's own interpreter, and keep spawn_servers/CONTRACT.md,
# which is the text to read first. They use what Ruby 2.6 has, for JRuby 9.3 is one; CRuby is tried from 3.1 on. They need the standard library alone.
#
# The files of passenger_trio/ are read in the order in which they are required below; behind them come exit_hooks.rb, holdings.rb and
# preloader.rb, which only rack_preloader.rb needs.
#
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

require_relative "passenger_trio/basics" # numbers, exceptions, the clock, reading
require_relative "passenger_trio/ownership" # what a forked process must let go of
require_relative "passenger_trio/events" # what applications may call
require_relative "passenger_trio/json" # lines of JSON
require_relative "passenger_trio/control_connection"
require_relative "passenger_trio/lifeline" # the thread that watches it, and the process's signals
require_relative "passenger_trio/loading" # from a config.ru to an application
require_relative "passenger_trio/advice" # from an exception to advice
require_relative "passenger_trio/frames" # the session protocol's numbers
require_relative "passenger_trio/request_body"
require_relative "passenger_trio/rewindable_input" # the same for Rack 2
require_relative "passenger_trio/session" # one request and its response
require_relative "passenger_trio/response_head"
require_relative "passenger_trio/response_body"
require_relative "passenger_trio/response_file"
require_relative "passenger_trio/hijack" # streaming bodies, the connection taken over
require_relative "passenger_trio/worker" # the socket, the streams, the threads
require_relative "passenger_trio/life" # what the last steps of every worker are
