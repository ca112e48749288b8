// The processes that the SDK talks to: the gateway and an upstream, each on a free port. MAGICAPI_TEST_BINARY is the
// gateway's binary; MAGICAPI_TEST_AIMOCK the command of aimock, an upstream that we did not write. `./test` sets both.
"use strict";

const { spawn } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const readline = require("node:readline");

const ROOT = path.resolve(__dirname, "../../..");
const BINARY = process.env.MAGICAPI_TEST_BINARY ?? path.join(ROOT, "target/debug/magicapi-ai-gateway");
const DEADLINE = 60_000;

const children = [];

// Starts a process and waits for the line of which `find` makes something.
function start(command, environment, find) {
  const [program, ...args] = command;
  const env = { PATH: process.env.PATH, ...environment };
  const child = spawn(program, args, { env, stdio: ["ignore", "pipe", "pipe"] });
  children.push(child);
  return new Promise((resolve, reject) => {
    const lines = [];
    const fail = (why) => reject(new Error(`${command.join(" ")} ${why}:\n${lines.join("\n")}`));
    const timer = setTimeout(() => fail("did not get ready"), DEADLINE);
    child.on("exit", () => fail("ended"));
    for (const output of [child.stdout, child.stderr]) {
      readline.createInterface({ input: output }).on("line", (line) => {
        lines.push(line);
        const found = find(line);
        if (found) {
          clearTimeout(timer);
          resolve(found);
        }
      });
    }
  });
}

const listeningAt = (line) => line.match(/listening on (http:\/\/[0-9.:]+)/)?.[1];

function gatewayAddress(line) {
  try {
    const entry = JSON.parse(line);
    return entry.message === "listening" ? entry.address : undefined;
  } catch {
    return undefined;
  }
}

// Our mock provider; its base URL.
async function startMock() {
  return `${await start([BINARY, "mock", "--listen", "127.0.0.1:0"], {}, listeningAt)}/v1`;
}

// aimock with our fixtures; its base URL.
async function startAimock() {
  const fixtures = path.join(ROOT, "tests/sdk/aimock/fixtures.json");
  const command = process.env.MAGICAPI_TEST_AIMOCK.split(" ");
  command.push("-p", "0", "-f", fixtures, "--strict", "--validate-on-load");
  return `${await start(command, {}, listeningAt)}/v1`;
}

// A gateway in front of the upstream; the base URL for SDKs.
async function startGateway(upstream) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "magicapi-sdk-"));
  process.on("exit", () => fs.rmSync(directory, { recursive: true, force: true }));
  const settings = {
    PORT: "0",
    ADMIN_LISTEN: "127.0.0.1:0",
    LOG_FORMAT: "json",
    DATA_DIR: directory,
    OPENAI_BASE_URL: upstream,
  };
  return `${await start([BINARY], settings, gatewayAddress)}/v1`;
}

function stopAll() {
  for (const child of children.splice(0)) {
    child.removeAllListeners("exit");
    child.kill("SIGKILL");
  }
}

module.exports = { startAimock, startGateway, startMock, stopAll };
