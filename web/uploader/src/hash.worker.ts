import { serve, type WorkerPort } from "./jobs.js";

serve(globalThis as unknown as WorkerPort);
