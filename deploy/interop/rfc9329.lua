-- Lets tshark read IKE and ESP in TCP (RFC 9329).  Its own "tcpencap" up to 4.0 takes port 4500 for an
-- older vendor format.   tshark -X lua_script:rfc9329.lua -r FILE
local stream = Proto("rfc9329", "IKE and ESP in TCP")
local prefix = ProtoField.string("rfc9329.prefix", "Stream Prefix")
local length = ProtoField.uint16("rfc9329.length", "Length")
stream.fields = { prefix, length }

local PREFIX, MARKER = "IKETCP", 0
local ike, esp = Dissector.get("isakmp"), Dissector.get("esp")

local function starts_stream(octets)
  return octets:len() >= #PREFIX and octets(0, #PREFIX):string() == PREFIX
end

local function frame_length(octets, _, at)
  local rest = octets(at):tvb()
  if starts_stream(rest) then return #PREFIX end
  return math.max(rest(0, 2):uint(), 2)
end

local function frame(octets, packet, tree)
  local node = tree:add(stream, octets())
  if starts_stream(octets) then
    node:add(prefix, octets(0, #PREFIX))
  else
    node:add(length, octets(0, 2))
    if octets:len() > 6 and octets(2, 4):uint() == MARKER then
      ike:call(octets(6):tvb(), packet, tree)
    elseif octets:len() > 6 then
      esp:call(octets(2):tvb(), packet, tree)
    end
  end
  return octets:len()
end

function stream.dissector(octets, _, tree)
  dissect_tcp_pdus(octets, tree, 2, frame_length, frame)
  return octets:len()
end

DissectorTable.get("tcp.port"):set(4500, stream)
