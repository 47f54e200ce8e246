require "there_is_no_such_gem"
