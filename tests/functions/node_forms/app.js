const later = (milliseconds, work) => setTimeout(work, milliseconds);

const forms = {
  async: async (event) => ({ async: event.value }),
  promise: (event) => new Promise((resolve) => later(10, () => resolve(event.value))),
  callback: (event, context, callback) => {
    context.callbackWaitsForEmptyEventLoop = event.waits;
    later(event.after, () => console.log("after the callback", event.value));
    callback(null, { callback: event.value });
  },
  callback_and_forever: (event, context, callback) => {
    setInterval(() => {}, 50);
    callback(null, "done");
  },
  nothing: () => {
    later(10, () => console.log("the last of it"));
  },
  succeed: (event, context) => context.succeed(event.value),
  done: (event, context) => context.done(null, event.value),
  fail: (event, context) => context.fail(new TypeError("by the context")),
  error: (event, context, callback) => callback(new RangeError("by the callback")),
  throws: () => {
    throw new SyntaxError("at once");
  },
  rejects: async () => {
    throw Object.assign(new Error("in a promise"), { name: "My.Error", code: "E_MINE" });
  },
  rejects_with_text: async () => Promise.reject("text"),
  cannot_be_json: async () => ({ big: 1n }),
  unhandled: async () => {
    Promise.reject(new Error("nobody looked"));
    await new Promise((resolve) => later(5000, resolve));
  },
  uncaught: () => {
    later(10, () => {
      throw new Error("nobody caught");
    });
  },
  exits: async () => process.exit(7),
};

exports.handler = (event, context, callback) => forms[event.form](event, context, callback);
