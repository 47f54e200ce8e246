# A Sinatra application (Debian's ruby-sinatra): a login form with a session, an upload, a stream.
require "sinatra/base"
require "digest"

class Login < Sinatra::Base
  enable :sessions
  set :session_secret, "not a secret: " + "x" * 64
  set :environment, ENV.fetch("RACK_ENV", "development").to_sym
  set :show_exceptions, false
  set :raise_errors, true

  get("/") { session[:name] ? "hello #{session[:name]}" : redirect(to("/login")) }
  get("/login") { '<form method="post" action="/login"><input name="name"><input type="password" name="password"></form>' }
  post "/login" do
    halt 403, "wrong" unless params["password"] == "sesame"
    session[:name] = params["name"]
    redirect to("/")
  end
  post "/upload" do
    file = params["file"]
    "#{file[:filename]} #{Digest::SHA256.hexdigest(file[:tempfile].read)} #{params['title']}"
  end
  get "/stream" do
    stream do |out|
      3.times { |number| out << "part #{number}\n" }
    end
  end
  get("/pid") { Process.pid.to_s }
  get("/raise") { raise "sinatra raised" }
end

run Login
