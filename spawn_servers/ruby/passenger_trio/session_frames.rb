# frozen_string_literal: true

# The frame types of the session protocol: CONTRACT.md, part "The session protocol".

module PassengerTrio
  HEAD = "H".ord
  DATA = "D".ord
  END_ = "E".ord
  ABORT = "A".ord
  RESPONSE = "R".ord
  INTERIM = "I".ord
  ERROR = "X".ord
  OOB_WORK = "O".ord
  UPGRADE = "U".ord
  END_FRAME = [END_, 0].pack("CN").freeze
  ABORT_FRAME = [ABORT, 0].pack("CN").freeze
  OOB_WORK_FRAME = [OOB_WORK, 0].pack("CN").freeze

  # Flags of END_.
  CLOSE_STREAM = 1
  OUT_OF_BAND_WORK = 2
end
