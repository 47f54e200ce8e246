# frozen_string_literal: true

# The frames of the session protocol, and how much is taken at a time.

module PassengerTrio
  HEAD = 72 # H
  DATA = 68
  END_ = 69
  ABORT = 65
  RESPONSE = 82
  INTERIM = 73
  ERROR = 88
  UPGRADE = 85
  THE_END = [END_, 0].pack("CN").freeze
  THE_ABORT = [ABORT, 0].pack("CN").freeze

  BLOCK = 65_536 # asked from the kernel at a time; a body up to this size is copied next to its head, to be one write
  FILE_FRAME = 1024 * 1024
  DRAIN_BYTES = 1024 * 1024
  DRAIN_TIME = 0.2 # how much of a body that the application did not read is dropped for the sake of the stream
  MEMORY_BODY = 128 * 1024 # a rewindable body that is longer goes to a file
end
