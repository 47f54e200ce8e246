require "sinatra/base"

class Hello < Sinatra::Base
  get("/") { "hello world" }
end

run Hello
