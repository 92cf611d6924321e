/** The process as the command line sees it, with streams of a test's own in the place of its three. */
import { afterEach, describe, it } from "node:test";
import process from "node:process";
import { PassThrough, Writable } from "node:stream";
import { assert, assertEquals } from "@std/assert";
import { type Io, processIo, STOP_SIGNALS, Stopped } from "../../../adapters/cli/io.ts";

type Stream = "stdin" | "stdout" | "stderr";

describe("processIo()", () => {
  const undo: (() => void)[] = [];

  afterEach(() => {
    for (const one of undo.splice(0)) one();
  });

  function put(name: Stream, stream: unknown): void {
    const known = Object.getOwnPropertyDescriptor(process, name)!;
    Object.defineProperty(process, name, { value: stream, configurable: true });
    undo.push(() => Object.defineProperty(process, name, known));
  }

  /** A stream that notes what it gets, and takes it when the test says so. */
  function sink(isTTY?: boolean) {
    let text = "", take = () => {};
    const stream = new Writable({
      write(data, _, done) {
        text += String(data);
        take = done;
      },
    });
    if (isTTY !== undefined) Object.assign(stream, { isTTY });
    return { stream, take: () => take(), text: () => text };
  }

  function open(out = sink(), err = sink()): { io: Io; out: typeof out; err: typeof err } {
    put("stdout", out.stream);
    put("stderr", err.stream);
    return { io: processIo(), out, err };
  }

  /** Lets what streams do between turns happen. */
  const turn = () => new Promise<void>((resolve) => setTimeout(resolve, 0));

  it("writes to each stream, and tells which of them is a terminal", () => {
    const { io, out, err } = open(sink(true));
    put("stdin", Object.assign(new PassThrough(), { isTTY: true }));
    io.stdout("a");
    io.stderr("b");
    assertEquals([out.text(), err.text()], ["a", "b"]);
    const { stdin, stdout, stderr } = io.isTerminal;
    assertEquals([stdin, stdout, stderr], [true, true, false]);
    const other = open(sink(), sink(true)).io.isTerminal;
    put("stdin", new PassThrough());
    assertEquals([other.stdin, other.stdout, other.stderr], [false, false, true]);
  });

  it("tells that nobody reads its output any more, and then writes none", async () => {
    const { io, out } = open();
    let told = 0, unasked = 0;
    io.onOutputClosed(() => told++);
    io.onOutputClosed(() => unasked++)();
    out.stream.destroy(new Error("EPIPE"));
    await turn();
    assertEquals([told, unasked], [1, 0]);

    let writes = 0;
    out.stream.write = () => ++writes > 0;
    io.stdout("late");
    await io.write(new Uint8Array([1]));
    assertEquals(writes, 0);
  });

  it("takes what a stream throws for the same, and minds no error of the other one", async () => {
    const { io, out, err } = open();
    const failing = () => {
      throw new Error("broken pipe");
    };
    out.stream.write = failing;
    err.stream.write = failing;
    let told = 0;
    io.onOutputClosed(() => told++);
    io.stderr("x");
    assertEquals(told, 0);
    io.stdout("x");
    assertEquals(told, 1);

    const second = open();
    second.out.stream.write = failing;
    second.io.onOutputClosed(() => told++);
    await second.io.write(new Uint8Array([1]));
    assertEquals(told, 2);
    second.err.stream.destroy(new Error("EPIPE"));
    await turn();
    assertEquals(told, 2);
  });

  it("waits for room where bytes are written", async () => {
    const { io, out } = open();
    let isDone = false;
    const writing = io.write(new TextEncoder().encode("x")).then(() => isDone = true);
    await turn();
    assertEquals([out.text(), isDone], ["x", false]);
    out.take();
    await writing;
  });

  it("tells the signals that end a command, until it is told not to", () => {
    const { io } = open();
    const before = STOP_SIGNALS.map((signal) => process.listenerCount(signal));
    const told: string[] = [];
    const off = io.onSignal((signal) => told.push(signal));
    for (const signal of STOP_SIGNALS) process.emit(signal, signal);
    off();
    assertEquals(told, ["SIGHUP", "SIGINT", "SIGTERM"]);
    assertEquals(STOP_SIGNALS.map((signal) => process.listenerCount(signal)), before);
  });

  it("has a clock and the environment of the process", () => {
    const { io } = open();
    assertEquals(io.env, process.env);
    const [first, second] = [io.now(), io.now()];
    assert(first <= second && first > 0);
  });

  describe("of standard input", () => {
    function input(): { stdin: PassThrough; io: Io } {
      const stdin = new PassThrough();
      put("stdin", stdin);
      return { stdin, io: open().io };
    }

    it("tells each line, and lets go of it", async () => {
      const { stdin, io } = input();
      const lines: string[] = [];
      let tell = () => {};
      const two = new Promise<void>((resolve) => tell = () => lines.length === 2 && resolve());
      const off = io.onLine((line) => {
        lines.push(line);
        tell();
      });
      stdin.write("one\ntwo\nthr");
      await two;
      assertEquals([lines, stdin.destroyed], [["one", "two"], false]);
      off();
      assertEquals(stdin.destroyed, true);
    });

    it("ends with no stack where the terminal is gone", async () => {
      const { stdin, io } = input();
      const off = io.onLine(() => {});
      stdin.destroy(new Error("EIO"));
      await turn();
      off();
    });

    it("gives what comes as bytes, one after the other, and then the end", async () => {
      const { stdin, io } = input();
      const bytes = io.openInput();
      const first = bytes.read();
      stdin.write(new Uint8Array([1]));
      assertEquals(await first, new Uint8Array([1]));
      stdin.write(new Uint8Array([2]));
      stdin.end(new Uint8Array([3]));
      assertEquals([await bytes.read(), await bytes.read(), await bytes.read()], [
        new Uint8Array([2]),
        new Uint8Array([3]),
        undefined,
      ]);
    });

    it("lets whoever writes wait where 16 pieces are not read, and goes on", async () => {
      const { stdin, io } = input();
      const bytes = io.openInput();
      for (let i = 1; i <= 15; i++) stdin.write(new Uint8Array([i]));
      await turn();
      assertEquals(stdin.isPaused(), false);
      stdin.write(new Uint8Array([16]));
      await turn();
      assertEquals(stdin.isPaused(), true);
      for (let i = 1; i <= 16; i++) assertEquals(await bytes.read(), new Uint8Array([i]));
      const next = bytes.read();
      stdin.write(new Uint8Array([17]));
      assertEquals(await next, new Uint8Array([17]));
    });

    it("is closed: who waits gets the end, and what was not read is gone", async () => {
      const { stdin, io } = input();
      const bytes = io.openInput();
      const waiting = bytes.read();
      bytes.close();
      assertEquals([await waiting, stdin.destroyed], [undefined, true]);
      assertEquals(stdin.listenerCount("data"), 0);

      const second = input();
      const unread = second.io.openInput();
      second.stdin.write(new Uint8Array([1]));
      await turn();
      unread.close();
      assertEquals(await unread.read(), undefined);
    });
  });

  describe("starts a command", () => {
    const skip = process.platform === "win32" && "there are no signals";

    it("with its environment alone, and tells its status", async () => {
      const { io } = open();
      const before = process.listenerCount("exit");
      const { ended } = await io.start('exit "$STATUS"', { STATUS: "7" });
      assertEquals(process.listenerCount("exit"), before + 1);
      assertEquals(await ended, 7);
      assertEquals(process.listenerCount("exit"), before);
    });

    it("and ends it with all that it has started", { skip }, async () => {
      const { io } = open();
      const { ended, kill } = await io.start("sleep 60 & wait", { PATH: process.env.PATH! });
      kill("SIGTERM");
      assertEquals(await ended, "SIGTERM");
      // It is over: that harms nobody.
      kill("SIGKILL");
    });
  });
});

describe("Stopped", () => {
  it("says why a command ends before it is done", () => {
    const [signal, closed] = [new Stopped("SIGINT"), new Stopped()];
    assertEquals([signal.message, signal.signal], ["Interrupted by SIGINT", "SIGINT"]);
    assertEquals([closed.message, closed.signal], ["Standard output is closed", undefined]);
  });
});
