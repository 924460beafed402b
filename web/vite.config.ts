import { fileURLToPath } from 'node:url';
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

/** The client that `make client` generates from the contract. */
const client = fileURLToPath(new URL('../.local/client/src', import.meta.url));
/** `npm run dev` asks this API. */
const proxy = Object.fromEntries(
  ['/api', '/v1', '/labels.json'].map((path) => [path, process.env.API_URL ?? 'http://127.0.0.1:8080']),
);

export default defineConfig({
  plugins: [react()],
  resolve: { alias: { '@client': client } },
  server: { proxy },
  preview: { proxy },
  build: {
    target: 'es2022',
    // The folder is in the repository, empty: analytics-api embeds what is in it.
    emptyOutDir: false,
    // A data: URL would need a wider Content-Security-Policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  test: { include: ['src/**/*.test.ts'], environment: 'node' },
});
