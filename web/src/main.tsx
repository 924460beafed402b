import { QueryClientProvider } from '@tanstack/react-query';
import { createRoot } from 'react-dom/client';
import { queries } from './answers';
import { App } from './app';
import { begin } from './session';
import { beginTheme } from './theme';
import './style.css';

// The token leaves the address bar before anything is asked or drawn.
begin();
beginTheme();
createRoot(document.getElementById('root')!).render(
  <QueryClientProvider client={queries}>
    <App />
  </QueryClientProvider>,
);
