# frozen_string_literal: true

# What rack_loader.rb and rack_preloader.rb share. They run a Rack application for passenger_trio in the application's own
# interpreter, and keep spawn_servers/CONTRACT.md, which is the text to read first.
#
# The reading order of the files is the order of the lines below. before_fork.rb, exit_hooks.rb, hazards.rb and preloader.rb come last;
# only rack_preloader.rb requires them.
#
# Every file opens with what it knows and its laws. These hold for all:
#
# * The syntax and the libraries are those of Ruby 2.6. It is tested with JRuby 9.3, whose language that is, and with CRuby
#   3.1 and newer.
# * No gem is loaded before the application's Bundler was asked, not even json, stringio or socket.rb: a Gemfile.lock
#   cannot choose the version of a default gem that is loaded already. socket.so is no gem.
# * All our constants are in the module PassengerTrio. PhusionPassenger is for applications.

RUBY_ENGINE == "jruby" ? require("socket") : require("socket.so")

require_relative "passenger_trio/basics" # limits, exceptions, the clock, the log
require_relative "passenger_trio/after_fork" # what a forked process closes and resets
require_relative "passenger_trio/events" # hooks of the application
require_relative "passenger_trio/json" # the JSON of control messages
require_relative "passenger_trio/control_connection" # messages, handshake, steps
require_relative "passenger_trio/stopping" # the shares of the shutdown timeout
require_relative "passenger_trio/backtraces" # the stacks of all threads, for a person who asks
require_relative "passenger_trio/connection_watcher" # the thread that ends the process
require_relative "passenger_trio/loading" # from a config.ru to an application
require_relative "passenger_trio/advice" # from an exception to advice
require_relative "passenger_trio/session_frames" # the frame types
require_relative "passenger_trio/request_body" # rack.input
require_relative "passenger_trio/rewindable_body" # rack.input for Rack 2
require_relative "passenger_trio/session" # one request and its response
require_relative "passenger_trio/response_head"
require_relative "passenger_trio/response_body"
require_relative "passenger_trio/response_file"
require_relative "passenger_trio/hijack" # streaming bodies, hijack, upgrades
require_relative "passenger_trio/worker" # the socket, the streams, the threads
require_relative "passenger_trio/loader_process" # connect, load, serve, end
