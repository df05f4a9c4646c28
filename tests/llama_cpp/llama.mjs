// Decodes with llama.cpp as often as it is told to.
//
// usage: node llama.mjs MODEL.gguf [FOLDER]
//
// FOLDER is where node-llama-cpp is installed, if not here. The first line on stdout says what runs. Each line on stdin,
// `CONTEXT LENGTH 1`, is answered by a line of JSON: tokens/s of decoding LENGTH tokens greedily after CONTEXT tokens, on
// one thread, by llama.cpp's own timer, which counts the passes alone, and by the clock, with what is around them.

import {join} from "node:path";
import {createInterface} from "node:readline";
import {pathToFileURL} from "node:url";

const [path, folder = import.meta.dirname] = process.argv.slice(2);
const {getLlama} = await import(pathToFileURL(join(folder, "node_modules/node-llama-cpp/dist/index.js")));
let printed = "";
const llama = await getLlama({
    gpu: false, build: "never", maxThreads: 1, logLevel: "log",
    logger: (_level, message) => { printed += message + "\n"; }
});
const model = await llama.loadModel({modelPath: path});
console.log(JSON.stringify({release: llama.llamaCppRelease.release, system: llama.systemInfo}));

for await (const line of createInterface({input: process.stdin})) {
    const [length, count] = line.split(" ").map(Number);
    const context = await model.createContext({
        contextSize: length + count + 8, threads: 1, flashAttention: true, performanceTracking: true
    });
    const sequence = context.getSequence();
    const tokens = Array.from({length}, (_, i) => (i * i * 7 + 13 * i) % 8000);
    await sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(0, -1));
    await context.printTimings(); // and set back
    printed = "";
    let drawn = 0;
    const start = performance.now();
    for await (const _ of sequence.evaluate(tokens.slice(-1), {temperature: 0, yieldEogToken: true}))
        if (++drawn === count) break;
    const clock = performance.now() - start;
    await context.printTimings();
    const [, passes, runs] = / eval time =\s*([\d.]+) ms \/\s*(\d+) runs/.exec(printed.replace(/prompt eval.*/, ""));
    console.log(JSON.stringify({passes: 1000 * runs / passes, clock: 1000 * count / clock}));
    await context.dispose();
}
process.exit(0);
