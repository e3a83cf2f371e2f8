// Hand the function to AWS's runtime client, unmodified, at once or, as a stem, when there is one.
//
// Room: guest, the function's own process. May: import what Node.js has and the client, as little as can be: every import
// here is part of every cold start.

import fs from "node:fs";
import { createRequire } from "node:module";

import { run } from "./index.mjs";

// What the client would otherwise load only once it has a function.
const require = createRequire(import.meta.url);
require("node:http");
require("./rapid-client.node");

const ORDERS = 3;

/**
 * As a stem, booted before there is a function: wait for its variables; its code is in place when they come.
 *
 * They come as `KEY=VALUE` with a NUL behind each, and a NUL behind all.
 */
async function awaitOrders() {
  if ("_HANDLER" in process.env) return;
  void process.stdout; // opened; else with the first line that the function prints
  await fs.promises.stat("/"); // with libuv's threads; else as the client asks for the first event
  const chunk = Buffer.alloc(65536);
  let orders = Buffer.alloc(0);
  while (!orders.subarray(-2).equals(Buffer.alloc(2))) {
    const length = fs.readSync(ORDERS, chunk);
    if (length === 0) process.exit(0); // nothing more: there will be no function
    orders = Buffer.concat([orders, chunk.subarray(0, length)]);
  }
  fs.closeSync(ORDERS);
  for (const variable of orders.toString().split("\0").slice(0, -2)) {
    const middle = variable.indexOf("=");
    const [key, value] = [variable.slice(0, middle), variable.slice(middle + 1)];
    if (process.env[key] !== value) process.env[key] = value; // setting TZ is dear, even to what it is
  }
  process.chdir(process.env.LAMBDA_TASK_ROOT);
}

await awaitOrders();
await run(process.env.LAMBDA_TASK_ROOT, process.env._HANDLER);
