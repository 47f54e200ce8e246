def deep
  raise ArgumentError, "it is broken"
end
deep
