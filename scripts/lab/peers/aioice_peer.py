"""ICE by aioice, for the lab: prints SDP, reads SDP up to an empty line, connects, pipes lines.

Arguments: controlling or controlled, and a STUN server as ADDRESS:PORT.
"""

import asyncio
import sys

import aioice


async def main(role, stun):
    address, port = stun.rsplit(":", 1)
    connection = aioice.Connection(
        ice_controlling=role == "controlling", stun_server=(address, int(port)), use_ipv6=False
    )
    await connection.gather_candidates()
    print(f"a=ice-ufrag:{connection.local_username}")
    print(f"a=ice-pwd:{connection.local_password}")
    for candidate in connection.local_candidates:
        print(f"a=candidate:{candidate.to_sdp()}")
    print(flush=True)
    loop = asyncio.get_event_loop()
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        name, _, value = line.partition(":")
        if name == "a=ice-ufrag":
            connection.remote_username = value
        elif name == "a=ice-pwd":
            connection.remote_password = value
        elif name == "a=candidate":
            await connection.add_remote_candidate(aioice.Candidate.from_sdp(value))
    await connection.add_remote_candidate(None)
    await connection.connect()
    await connection.send(b"from the other stack")
    while True:
        print((await connection.recv()).decode(), flush=True)


asyncio.run(main(*sys.argv[1:]))
