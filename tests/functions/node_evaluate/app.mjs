import { createRequire } from "node:module";
import { setTimeout } from "node:timers/promises";

const AsyncFunction = (async () => {}).constructor;
const require = createRequire(import.meta.url);
const awaited = await setTimeout(1, "as it loads");

export const handler = async (event, context) =>
  new AsyncFunction("event", "context", "require", "awaited", event.code)(event, context, require, awaited);
