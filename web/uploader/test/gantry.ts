import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const repository = fileURLToPath(new URL("../../..", import.meta.url));

/** A real server on a directory and a port of its own. */
export interface Server {
	/** http://127.0.0.1:port */
	url: string;
	stop(): Promise<void>;
}

/** Builds the server from the sources (Go caches that; GANTRY names a program that is built already) and starts it. */
export async function startServer(): Promise<Server> {
	const directory = mkdtempSync(join(tmpdir(), "gantry-"));
	let program = process.env.GANTRY;
	if (!program) {
		program = join(directory, "gantry");
		execFileSync("go", ["build", "-o", program, "./cmd/gantry"], { cwd: repository, stdio: "inherit" });
	}
	const [listen, management] = [await freeAddress(), await freeAddress()];
	const args = ["serve", "--listen", listen, "--management", management, "--data", join(directory, "data")];
	const server = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"] });
	let log = "";
	server.stderr.on("data", (text) => (log += String(text)));
	const url = `http://${listen}`;
	while (!(await answers(`${url}/v1/uploads`))) {
		if (server.exitCode !== null) {
			throw new Error(`The server ended:\n${log}`);
		}
	}
	return {
		url,
		stop: async () => {
			await ended(server);
			rmSync(directory, { recursive: true });
		},
	};
}

async function answers(url: string): Promise<boolean> {
	try {
		return (await fetch(url)).ok;
	} catch {
		return new Promise((resolve) => setTimeout(() => resolve(false), 20));
	}
}

function ended(server: ChildProcess): Promise<void> {
	return new Promise((resolve) => {
		server.once("exit", () => resolve());
		server.kill("SIGTERM");
	});
}

function freeAddress(): Promise<string> {
	return new Promise((resolve, reject) => {
		const probe = createServer();
		probe.once("error", reject);
		probe.listen(0, "127.0.0.1", () => {
			const address = probe.address();
			probe.close(() => resolve(`127.0.0.1:${typeof address === "object" ? address?.port : ""}`));
		});
	});
}
