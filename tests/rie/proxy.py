"""TCP proxies whose connections can die."""

import asyncio
import enum
import socket
import struct
import threading


class Death(enum.Enum):
    """How connections die."""

    # The other side has forgotten them: the next packet is answered with a reset.
    RESET = "reset"
    # Nobody tells: what is sent is lost.
    SILENT = "silently dead"


class Proxies:
    """Runs proxies on a thread of its own, for as long as the context lasts."""

    def __init__(self):
        self.proxies = []

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        async def end():
            for proxy in self.proxies:
                proxy.server.close()
                for writer in proxy.writers:
                    writer.transport.abort()
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

        asyncio.run_coroutine_threadsafe(end(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def to(self, port, tls=None):
        """Starts a proxy to a port of this machine; with a TLS context, it ends TLS."""
        proxy = Proxy(self.loop, port, tls)
        asyncio.run_coroutine_threadsafe(proxy.start(), self.loop).result()
        self.proxies.append(proxy)
        return proxy


class Proxy:
    """A proxy to a port of this machine."""

    def __init__(self, loop, target, tls):
        self.loop, self.target, self.tls = loop, target, tls
        self.alive, self.dead = set(), set()
        # Both sides of every connection.
        self.writers = []
        # How many times something arrived on a connection that was silently dead.
        self.unheard = 0

    async def start(self):
        """Listens on a free port."""
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]

    async def serve(self, reader, writer):
        """Relays a connection until it ends or dies."""
        self.alive.add(writer)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self.writers += [writer, far_writer]

        async def pump(source, sink, is_from_function):
            while data := await source.read(65_536):
                if writer not in self.dead:
                    # What listens behind the proxy answers only to its own name.
                    sink.write(data.replace(b"127.0.0.1:%d" % self.port, b"127.0.0.1:%d" % self.target))
                    await sink.drain()
                elif is_from_function:
                    self.unheard += 1
            if writer not in self.dead:
                sink.close()

        try:
            await asyncio.gather(pump(reader, far_writer, True), pump(far_reader, writer, False))
        except OSError:
            writer.close()
            far_writer.close()
        finally:
            self.alive.discard(writer)

    def kill(self, death):
        """Ends all connections this way. New ones live."""

        async def end():
            for writer in self.alive:
                if death is Death.RESET:
                    end_at_once = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, end_at_once)
                    writer.transport.abort()
                else:
                    self.dead.add(writer)
            self.alive.clear()

        asyncio.run_coroutine_threadsafe(end(), self.loop).result()
