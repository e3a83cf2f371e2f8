import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout } from "node:timers/promises";

async function* words() {
  for (const word of ["one ", "two ", "three "]) {
    yield word;
    await setTimeout(300);
  }
}

const ways = {
  slowly: async (stream) => pipeline(Readable.from(words()), stream),
  typed: async (stream) => {
    stream.setContentType("text/plain");
    stream.write("plain");
    stream.end();
  },
  http: async (stream) => {
    const answer = awslambda.HttpResponseStream.from(stream, { statusCode: 201, headers: { "x-mine": "1" } });
    answer.write("created");
    answer.end();
  },
  large: async (stream) => pipeline(Readable.from(Array(80).fill(Buffer.alloc(65536))), stream),
  failing: async (stream) => {
    stream.write("begun");
    await setTimeout(50);
    throw new RangeError("in the middle");
  },
};

export const handler = awslambda.streamifyResponse(async (event, stream, context) => {
  console.log("streams", event, context.functionVersion);
  await ways[event](stream);
});
